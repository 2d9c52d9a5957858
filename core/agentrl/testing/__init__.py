"""Holds plugins to the rules of their kind, on a CPU, without a model.

In your own test:

    from agentrl.testing import check_env

    def test_my_env_keeps_the_rules() -> None:
        check_env(MyEnv)

Each `check_*` takes what makes your plugin (the class, or a function that returns an instance), and raises
`RulesBroken`, which says which rules are broken, what was seen, and what to do. The modules here hold the
rules of one kind each; `engines` and `samples` hold stand-ins to build tests of your own with. Under pytest
the checks are also fixtures of the same names, so a test need not import anything.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentrl.testing.agents import check_agent
    from agentrl.testing.algorithms import check_algorithm
    from agentrl.testing.curricula import check_curriculum
    from agentrl.testing.engine_rules import check_engine
    from agentrl.testing.engines import ByteTokenizer, ScriptedEngine
    from agentrl.testing.envs import check_env
    from agentrl.testing.hooks import check_hook
    from agentrl.testing.rewards import check_reward
    from agentrl.testing.rules import RuleBroken, RulesBroken, Verdict
    from agentrl.testing.samples import make_trajectory, make_walk

__all__ = [
    "ByteTokenizer",
    "RuleBroken",
    "RulesBroken",
    "ScriptedEngine",
    "Verdict",
    "check_agent",
    "check_algorithm",
    "check_curriculum",
    "check_engine",
    "check_env",
    "check_hook",
    "check_reward",
    "make_trajectory",
    "make_walk",
]

_HOMES = {
    "ByteTokenizer": "engines",
    "RuleBroken": "rules",
    "RulesBroken": "rules",
    "ScriptedEngine": "engines",
    "Verdict": "rules",
    "check_agent": "agents",
    "check_algorithm": "algorithms",
    "check_curriculum": "curricula",
    "check_engine": "engine_rules",
    "check_env": "envs",
    "check_hook": "hooks",
    "check_reward": "rewards",
    "make_trajectory": "samples",
    "make_walk": "samples",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, not before: pytest imports this package in every test run."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
