"""Every shipped plugin keeps the rules that its author would be held to."""

from collections.abc import Callable

import pytest

from agentrl.discovery import CORE, list_plugins
from agentrl.plugins import load
from agentrl.testing import check_agent, check_algorithm, check_curriculum, check_env, check_reward

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


@pytest.mark.parametrize(("kind", "name"), SHIPPED)
def test_a_shipped_plugin_keeps_the_rules_of_its_kind(kind: str, name: str) -> None:
    options = {"gradcheck": False} if kind == "algorithm" and name in PARTLY_CONSTANT else {}
    CHECKS[kind](load(kind, name), **options)


def test_all_kinds_that_have_rules_are_shipped() -> None:
    assert {kind for kind, _ in SHIPPED} == set(CHECKS)
