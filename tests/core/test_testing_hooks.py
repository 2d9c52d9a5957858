"""The conformance kit for hook plugins."""

import random
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest
import typer

from agentrl import Group, Plugin, Trajectory, hookimpl
from agentrl.testing import RulesBroken, check_hook


class Notes(Plugin):
    """Writes the steps of a run down."""

    path: Path | None = None

    @hookimpl
    def run_started(self, folder: Path) -> None:
        self.path = folder / "steps"

    @hookimpl
    def step_finished(self, step: int, metrics: Mapping[str, float]) -> None:
        assert self.path
        with self.path.open("a") as file:
            file.write(f"{step} {metrics.get('success')}\n")


class HasNoHook(Plugin):
    def step_finished(self, step: int) -> None:
        pass


class HasAnUnknownHook(Notes):
    @hookimpl
    def step_finnished(self, step: int) -> None:
        pass


class HasAnUnknownArgument(Notes):
    @hookimpl
    def evaluated(self, step: int, metric: float) -> None:
        pass


class ExpectsAMetric(Notes):
    @hookimpl
    def step_finished(self, step: int, metrics: Mapping[str, float]) -> None:
        assert metrics["trainer/speed"]


class StartsOnce(Notes):
    @hookimpl
    def run_started(self, folder: Path) -> None:
        self.path = folder / "steps"
        self.path.touch(exist_ok=False)


class NeedsASuccess(Notes):
    last: float

    @hookimpl
    def evaluated(self, step: int) -> None:
        self.last = step

    @hookimpl
    def run_finished(self) -> None:
        print(self.last)


class AddsText(Notes):
    @hookimpl
    def adjust_reward(self, trajectory: Trajectory) -> float:
        return "much"  # type: ignore[return-value]


class Rolls(Notes):
    @hookimpl
    def adjust_reward(self, trajectory: Trajectory) -> float:
        return random.random()


class Rewrites(Notes):
    @hookimpl
    def keep_group(self, group: Group) -> bool:
        group.trajectories[0].reward += 1
        return True


class ChokesOnEqualRewards(Notes):
    @hookimpl
    def keep_group(self, group: Group) -> bool:
        return 1 / (max(group.rewards) - min(group.rewards)) < 10


class SaysNothingOfItsCommand(Notes):
    @hookimpl
    def register_commands(self, app: typer.Typer) -> None:
        app.command("mute")(lambda: None)


def test_a_good_hook_plugin_passes() -> None:
    check_hook(Notes)
    check_hook(lambda: Notes())
    module = ModuleType("notes_module")
    module.run_finished = hookimpl(lambda error: None)  # type: ignore[attr-defined]
    module.run_finished.__name__ = "run_finished"
    check_hook(module)


@pytest.mark.parametrize(
    ("hook", "rule", "remedy"),
    [
        (HasNoHook, "takes part as hooks do: .* has no function marked", "agentrl.hookspecs"),
        (HasAnUnknownHook, "takes part as hooks do: .* did you mean 'step_finished'", "agentrl.hookspecs"),
        (HasAnUnknownArgument, "takes part as hooks do: .* evaluated has no argument 'metric'", "hookspecs"),
        (ExpectsAMetric, "raises nothing: .* failed in step_finished: KeyError", "catch what you can"),
        (
            StartsOnce,
            "raises nothing: taking part in a run that was resumed .*FileExistsError",
            "earlier start",
        ),
        (NeedsASuccess, "raises nothing: a run that failed at once .*AttributeError", "run_finished work"),
        (AddsText, "takes part as hooks do: .* must return a finite number", "catch what you can"),
        (Rolls, "answers alike", "no random number"),
        (Rewrites, "leaves what it sees alone", "copy what you change"),
        (ChokesOnEqualRewards, "raises nothing: .* failed in keep_group: ZeroDivisionError", "catch what"),
        (SaysNothingOfItsCommand, "adds its commands: the command 'mute' has no help", "docstring"),
    ],
)
def test_a_bad_hook_plugin_is_told_what_is_wrong(hook: type[Plugin], rule: str, remedy: str) -> None:
    with pytest.raises(RulesBroken, match=f"{rule}.*; .*{remedy}"):
        check_hook(hook)
