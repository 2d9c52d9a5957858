"""Every shipped plugin keeps the rules that its author would be held to."""

from collections.abc import Callable

import pytest

from agentrl import RemoteEnv
from agentrl.discovery import CORE, list_plugins
from agentrl.errors import UsageError
from agentrl.hosting.elsewhere import site_of
from agentrl.plugins import load
from agentrl.testing import check_agent, check_algorithm, check_curriculum, check_env, check_reward
from agentrl_browser import BrowserEnv, find_executable

CHECKS: dict[str, Callable[..., None]] = {
    "env": check_env,
    "agent": check_agent,
    "reward": check_reward,
    "algorithm": check_algorithm,
    "curriculum": check_curriculum,
}
# Losses that hold part of themselves constant on purpose, where finite differences mean nothing.
PARTLY_CONSTANT = {"cispo"}
SHIPPED = [
    (plugin.kind, plugin.name)
    for plugin in list_plugins()
    if plugin.kind in CHECKS and plugin.distribution == CORE
]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("kind", "name"), SHIPPED)
def test_a_shipped_plugin_keeps_the_rules_of_its_kind(kind: str, name: str) -> None:
    options: dict[str, object] = {}
    if kind == "algorithm" and name in PARTLY_CONSTANT:
        options = {"gradcheck": False}
    plugin = load(kind, name)
    if issubclass(plugin, RemoteEnv):
        # Each of the check's envs preloads a world of its own.
        options = {"tasks": 1, "seconds": 120.0}
        if not site_of(plugin).ready:
            pytest.skip(f"set up with: agentrl env setup {name}")
    if issubclass(plugin, BrowserEnv):
        options = {"tasks": 2, "seconds": 120.0}
        try:
            find_executable()
        except UsageError as missing:
            pytest.skip(str(missing))
    CHECKS[kind](plugin, **options)


def test_all_kinds_that_have_rules_are_shipped() -> None:
    assert {kind for kind, _ in SHIPPED} == set(CHECKS)
