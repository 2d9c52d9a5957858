from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from agentrl import AgentRLError, Env, Group, PluginError, Task, Trajectory, UsageError, hookimpl
from agentrl.hooks import Hooks

Install = Callable[..., Path]
HOOKS = "agentrl.hooks"
TRAJECTORY = Trajectory(Task("t"))


def alone(*plugins: object) -> Hooks:
    return Hooks(plugins=plugins, installed=False)


class Steps:
    def __init__(self) -> None:
        self.seen: list[tuple[int, dict[str, float]]] = []

    @hookimpl
    def step_finished(self, step: int, metrics: Mapping[str, float]) -> None:
        self.seen.append((step, dict(metrics)))


def test_hooks_are_told_and_may_leave_out_arguments() -> None:
    class OnlyStep:
        seen: list[int] = []

        @hookimpl
        def step_finished(self, step: int) -> None:
            self.seen.append(step)

    steps = Steps()
    hooks = alone(steps, OnlyStep())
    hooks.step_finished(3, {"reward": 0.5})
    hooks.run_finished(None)
    assert steps.seen == [(3, {"reward": 0.5})]
    assert OnlyStep.seen == [3]


def test_hooks_without_plugins_change_nothing(toys: Path) -> None:
    from agentrl.plugins import make

    hooks, env = alone(), make("env", "toy")
    assert hooks.adjust_reward(TRAJECTORY) == 0.0
    assert hooks.keep_group(Group(TRAJECTORY.task, []))
    assert hooks.wrap_env(env, TRAJECTORY.task, 0) is env


def test_adjustments_are_summed_and_one_veto_drops_a_group() -> None:
    class Bonus:
        @hookimpl
        def adjust_reward(self) -> float:
            return 0.5

    class Silent:
        @hookimpl
        def adjust_reward(self) -> None:
            return None

        @hookimpl
        def keep_group(self) -> bool:
            return True

    class Veto:
        @hookimpl
        def adjust_reward(self) -> int:
            return -2

        @hookimpl
        def keep_group(self, group: Group) -> bool:
            return not group.trajectories

    hooks = alone(Bonus(), Silent(), Veto())
    assert hooks.adjust_reward(TRAJECTORY) == -1.5
    assert hooks.keep_group(Group(TRAJECTORY.task, []))
    assert not hooks.keep_group(Group(TRAJECTORY.task, [TRAJECTORY]))


def test_what_was_chosen_for_something_else_takes_part_if_it_has_hooks() -> None:
    class Plain:
        @property
        def needs(self) -> int:
            raise AssertionError("looked at")

    class Picky:
        @hookimpl
        def keep_group(self) -> bool:
            return False

    hooks = alone()
    hooks.invite(Plain(), "plain")
    assert hooks.names == []
    assert hooks.keep_group(Group(TRAJECTORY.task, []))
    hooks.invite(Picky(), "picky")
    assert hooks.names == ["picky"]
    assert not hooks.keep_group(Group(TRAJECTORY.task, []))


@pytest.mark.parametrize("amount", ["much", float("nan"), True])
def test_an_adjustment_that_is_no_number_names_the_plugin(amount: Any) -> None:
    class Odd:
        @hookimpl
        def adjust_reward(self) -> Any:
            return amount

    with pytest.raises(
        PluginError, match=r"hook plugin 'Odd' must return a finite number from adjust_reward"
    ):
        alone(Odd()).adjust_reward(TRAJECTORY)


def test_envs_are_wrapped_one_after_the_other_by_name(install: Install, toys: Path) -> None:
    from agentrl.plugins import make

    module = """
from agentrl import hookimpl
@hookimpl
def wrap_env(env, seed):
    env.trail = [*getattr(env, "trail", []), (__name__, seed)]
    return env
"""
    points = {"b_second": "wrap_b", "a_first": "wrap_a"}
    install("wraps", {HOOKS: points}, modules={"wrap_a": module, "wrap_b": module})
    env = Hooks().wrap_env(make("env", "toy"), TRAJECTORY.task, 4)
    assert env.trail == [("wrap_a", 4), ("wrap_b", 4)]  # type: ignore[attr-defined]


def test_a_wrapper_that_returns_something_else_is_named(toys: Path) -> None:
    from agentrl.plugins import make

    class Thief:
        @hookimpl
        def wrap_env(self, env: Env) -> Any:
            return "mine"

    with pytest.raises(PluginError, match=r"hook plugin 'Thief' returned 'mine' from wrap_env, not an Env"):
        alone(Thief()).wrap_env(make("env", "toy"), TRAJECTORY.task, 0)


def test_an_unknown_hook_suggests_the_nearest() -> None:
    class Typo:
        @hookimpl
        def step_finishd(self, step: int) -> None: ...

    with pytest.raises(
        PluginError, match=r"'Typo' implements 'step_finishd', which is no hook; did you mean 'step_finished'"
    ):
        alone(Typo())


def test_an_unknown_argument_names_the_known_ones() -> None:
    class Typo:
        @hookimpl
        def step_finished(self, metric: object) -> None: ...

    with pytest.raises(
        PluginError, match=r"'Typo': step_finished has no argument 'metric'; it has: step, metrics"
    ):
        alone(Typo())


def test_a_plugin_without_hooks_and_a_taken_name_are_errors() -> None:
    with pytest.raises(PluginError, match=r"'object' has no function marked with @agentrl.hookimpl"):
        alone(object())
    with pytest.raises(PluginError, match=r"two hook plugins are called 'Steps'"):
        alone(Steps(), Steps())


def test_a_plugin_that_raises_is_named_with_its_hook() -> None:
    def fail() -> None:
        raise ValueError("disk on fire")

    class Fine:
        @hookimpl
        def step_finished(self) -> None: ...

    class Bad:
        @hookimpl
        def step_finished(self) -> None:
            fail()

    with pytest.raises(
        AgentRLError, match=r"hook plugin 'Bad' failed in step_finished: ValueError: disk on fire"
    ) as caught:
        alone(Fine(), Bad(), Steps()).step_finished(1, {})
    assert isinstance(caught.value.__cause__, ValueError)


def test_an_error_in_the_users_words_passes_unchanged() -> None:
    class Strict:
        @hookimpl
        def run_started(self) -> None:
            raise UsageError("set a project name")

    with pytest.raises(UsageError, match=r"^set a project name$"):
        alone(Strict()).run_started(None, Path())  # type: ignore[arg-type]


CLASS = """
from agentrl import Plugin, PluginConfig, hookimpl
class Counter(Plugin):
    class Config(PluginConfig):
        start: int = 0
    @hookimpl
    def adjust_reward(self): return self.config.start
class Plain:
    @hookimpl
    def adjust_reward(self): return 1
"""


def test_a_class_gets_its_options(install: Install) -> None:
    install("counter", {HOOKS: {"counter": "counter_hook:Counter"}}, modules={"counter_hook": CLASS})
    assert Hooks({"counter": {"start": 5}}).adjust_reward(TRAJECTORY) == 5
    with pytest.raises(
        UsageError,
        match=r"hook 'counter' has no option 'hooks.counter.stat'; did you mean 'hooks.counter.start'",
    ):
        Hooks({"counter": {"stat": 5}})


def test_options_for_what_is_not_installed_are_an_error(install: Install) -> None:
    install("counter", {HOOKS: {"counter": "counter_hook:Counter"}}, modules={"counter_hook": CLASS})
    with pytest.raises(PluginError, match=r"no hook 'conter'; did you mean 'counter'"):
        Hooks({"conter": {}})


def test_a_module_takes_no_options_and_a_plain_class_is_refused(install: Install) -> None:
    modules = {
        "counter_hook": CLASS,
        "quiet_hook": "from agentrl import hookimpl\n@hookimpl\ndef adjust_reward(): return 1\n",
    }
    install("quiet", {HOOKS: {"quiet": "quiet_hook"}}, modules=modules)
    with pytest.raises(
        UsageError, match=r"hook 'quiet' has no option 'hooks.quiet.loud': it takes no options"
    ):
        Hooks({"quiet": {"loud": True}})
    install("plain", {HOOKS: {"plain": "counter_hook:Plain"}}, modules={})
    with pytest.raises(
        PluginError, match=r"the hook 'plain' of plain 1.0 cannot be used: counter_hook:Plain is neither"
    ):
        Hooks()


def test_a_broken_hook_plugin_is_an_error_or_reported(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("bad", {HOOKS: {"bad": "bad_hook"}}, modules={"bad_hook": "import not_there_at_all"})
    with pytest.raises(PluginError, match=r"the hook 'bad' of bad 1.0 could not be imported"):
        Hooks()
    reported: list[PluginError] = []
    assert "bad" not in Hooks(on_broken=reported.append).names
    assert len(reported) == 1
    monkeypatch.setenv("AGENTRL_DISABLE_PLUGINS", "bad")
    assert "bad" not in Hooks().names


def test_two_distributions_with_one_hook_name_are_both_named(install: Install) -> None:
    install("first", {HOOKS: {"track": "one"}}, modules={"one": ""})
    install("second", {HOOKS: {"track": "two"}}, modules={"two": ""})
    with pytest.raises(PluginError, match=r"first 1.0 .* and second 1.0|second 1.0 .* and first 1.0"):
        Hooks()


def test_every_hook_has_a_method_with_the_same_arguments() -> None:
    import inspect

    from agentrl import hookspecs

    for name, specification in vars(hookspecs).items():
        if hasattr(specification, "agentrl_spec"):
            wanted = list(inspect.signature(specification).parameters)
            assert list(inspect.signature(getattr(Hooks, name)).parameters) == ["self", *wanted]


def test_a_module_is_called_by_its_entry_points_name(install: Install) -> None:
    install(
        "quiet",
        {HOOKS: {"zzz": "zzz_hook"}},
        modules={"zzz_hook": "from agentrl import hookimpl\n@hookimpl\ndef adjust_reward(): return 1\n"},
    )
    hooks = Hooks()
    assert hooks.names[-1] == "zzz"
    assert isinstance(hooks._manager.get_plugin("zzz"), ModuleType)
