"""The conformance kit as pytest fixtures: `def test_my_env(check_env): check_env(MyEnv)`.

Pytest imports this in every test run of an environment that has agentrl, so what it needs is imported late.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from agentrl.testing.engines import ScriptedEngine


@pytest.fixture
def check_env() -> Callable[..., None]:
    """Return `agentrl.testing.check_env`."""
    from agentrl.testing.envs import check_env

    return check_env


@pytest.fixture
def check_reward() -> Callable[..., None]:
    """Return `agentrl.testing.check_reward`."""
    from agentrl.testing.rewards import check_reward

    return check_reward


@pytest.fixture
def check_algorithm() -> Callable[..., None]:
    """Return `agentrl.testing.check_algorithm`."""
    from agentrl.testing.algorithms import check_algorithm

    return check_algorithm


@pytest.fixture
def check_agent() -> Callable[..., None]:
    """Return `agentrl.testing.check_agent`."""
    from agentrl.testing.agents import check_agent

    return check_agent


@pytest.fixture
def check_curriculum() -> Callable[..., None]:
    """Return `agentrl.testing.check_curriculum`."""
    from agentrl.testing.curricula import check_curriculum

    return check_curriculum


@pytest.fixture
def check_engine() -> Callable[..., None]:
    """Return `agentrl.testing.check_engine`."""
    from agentrl.testing.engine_rules import check_engine

    return check_engine


@pytest.fixture
def check_hook() -> Callable[..., None]:
    """Return `agentrl.testing.check_hook`."""
    from agentrl.testing.hooks import check_hook

    return check_hook


@pytest.fixture
def scripted_engine() -> "type[ScriptedEngine]":
    """Return `agentrl.testing.ScriptedEngine`, an engine that says what you tell it to."""
    from agentrl.testing.engines import ScriptedEngine

    return ScriptedEngine
