"""The rules of hook plugins."""

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, TypeAlias

import typer

from agentrl.config import Choice, RunConfig
from agentrl.errors import AgentRLError, PluginError
from agentrl.hooks import Hooks
from agentrl.interfaces import Env
from agentrl.testing.rules import Report, RuleBroken, judge_by, name_of
from agentrl.testing.samples import make_groups, make_trajectory
from agentrl.types import Action, Group, Observation, Outcome, Task, Trajectory, Turn

METRICS: Mapping[str, float] = {"success": 0.5, "reward": 0.25, "trainer/loss": float("nan")}
Material: TypeAlias = tuple[list[Trajectory], list[Group]]
# What a run may be configured as.
CONFIG = RunConfig(env=Choice(name="toy"), agent=Choice(name="chat"), device="cpu")


def check_hook(make: Callable[[], object] | ModuleType, report: Report | None = None) -> None:
    """Hold a hook plugin to the rules of its kind.

    Args:
        make: the class, a function that returns an instance with the options to test, or a module.
        report: told of each rule, as soon as it was tried.

    Raises:
        RulesBroken: with all rules that it breaks.
    """
    __tracebackhide__ = True
    name = make.__name__ if isinstance(make, ModuleType) else name_of(make)
    judge_by(RULES, HookUnderTest(make), name, report)


class Still(Env):
    """An env in which nothing happens, for hooks to wrap."""

    def tasks(self, split: str) -> list[Task]:
        """Return one task."""
        return [Task("still", split)]

    async def reset(self, task: Task, seed: int) -> Observation:
        """Begin."""
        return Observation("Nothing is to be done.")

    async def step(self, action: Action) -> Observation:
        """End."""
        return Observation("", done=True)

    async def judge(self) -> Outcome:
        """Judge."""
        return Outcome(success=False)


@dataclass(frozen=True, slots=True)
class HookUnderTest:
    """Makes hook plugins and has them take part in a run."""

    make: Callable[[], object] | ModuleType

    def hooks(self) -> Hooks:
        """Return hooks in which a fresh plugin takes part, alone."""
        with _kept("making the plugin", "let it be made without options, or check a function that does"):
            plugin = self.make if isinstance(self.make, ModuleType) else self.make()
        with _kept("registering it", "see agentrl.hookspecs for the hooks there are"):
            return Hooks(plugins=[plugin], installed=False)

    def play(self, what: str, remedy: str, folder: str, material: Material | None = None) -> list[Any]:
        """Take a fresh plugin through a run, and return what it answered."""
        hooks = self.hooks()
        with _kept(what, remedy):
            return _run(hooks, Path(folder), *(material or _material()))


@contextmanager
def _kept(what: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except PluginError as error:
        raise RuleBroken("takes part as hooks do", str(error), remedy) from error
    except Exception as error:
        cause = str(error) if isinstance(error, AgentRLError) else f"{type(error).__name__}: {error}"
        raise RuleBroken("raises nothing", f"{what} failed ({cause})", remedy) from error


def _run(hooks: Hooks, folder: Path, trajectories: list[Trajectory], groups: list[Group]) -> list[Any]:
    """Take a plugin through a run of two updates, and return what it answered."""
    hooks.run_started(CONFIG, folder)
    hooks.evaluated(0, METRICS)
    answers: list[Any] = []
    for step in (1, 2):
        hooks.wrap_env(Still(), Task("still"), step)
        hooks.agent_acted(Task("still"), Turn(Observation("?"), Action("!")))
        answers += [hooks.adjust_reward(trajectory) for trajectory in trajectories]
        answers += [hooks.keep_group(group) for group in groups]
        hooks.step_finished(step, METRICS)
        hooks.checkpoint_saved(step, folder)
    hooks.evaluated(2, METRICS)
    hooks.run_finished(None)
    return answers


def _material() -> Material:
    """Return trajectories and groups to show, anew."""
    cut_off = make_trajectory((), None, False, stop="max_tokens", lengths=())
    return [make_trajectory(), cut_off], make_groups([[1.0, 0.0], [0.0, 0.0], [1.0]])


def takes_part_in_a_run(subject: HookUnderTest) -> None:
    """From start to end, each hook it has is called with what a run has to show, and none raises."""
    remedy = "catch what you can do without: what a hook raises stops the run"
    with TemporaryDirectory() as folder:
        subject.play("taking part in a run", remedy, folder)


def goes_on_with_a_run(subject: HookUnderTest) -> None:
    """A run that is resumed begins again in the folder in which it was; one may also fail at once."""
    with TemporaryDirectory() as folder:
        for what in ("taking part in a run", "taking part in a run that was resumed"):
            subject.play(what, "let run_started find what an earlier start has left", folder)
        hooks = subject.hooks()
        with _kept("a run that failed at once", "let run_finished work at any time"):
            hooks.run_started(CONFIG, Path(folder))
            hooks.run_finished(AgentRLError("the engine failed"))


def answers_alike(subject: HookUnderTest) -> None:
    """The same trajectories and groups get the same answers, in another run, too."""
    answers = []
    for _ in range(2):
        with TemporaryDirectory() as folder:
            answers.append(subject.play("taking part in a run", "catch what you can do without", folder))
    if answers[0] != answers[1]:
        found = "adjust_reward or keep_group answered something else when the same was played again"
        raise RuleBroken("answers alike", found, "use no clock and no random number: runs are to repeat")


def leaves_what_it_sees_alone(subject: HookUnderTest) -> None:
    """What is to change is returned; what is shown stays as it is."""
    material = _material()
    before = copy.deepcopy(material)
    with TemporaryDirectory() as folder:
        subject.play("taking part in a run", "catch what you can do without", folder, material)
    if material != before:
        remedy = "copy what you change, and return what is to be added by adjust_reward"
        raise RuleBroken("leaves what it sees alone", "a trajectory or a group was changed", remedy)


def adds_its_commands(subject: HookUnderTest) -> None:
    """Commands it brings say what they do."""
    app, hooks = typer.Typer(), subject.hooks()
    with _kept("register_commands", "add commands to the app that you are given"):
        hooks.register_commands(app)
    for command in app.registered_commands:
        if not (command.help or inspect.getdoc(command.callback)):
            found = f"the command {command.name or command.callback!r} has no help"
            raise RuleBroken("adds its commands", found, "give the function a docstring")


RULES = (
    takes_part_in_a_run,
    goes_on_with_a_run,
    answers_alike,
    leaves_what_it_sees_alone,
    adds_its_commands,
)
