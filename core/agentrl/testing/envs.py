"""The rules of envs."""

import asyncio
import copy
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from agentrl.errors import UsageError
from agentrl.hosting.codec import task_to_json
from agentrl.interfaces import Env
from agentrl.testing.env_player import HUGE, NONSENSE, EnvUnderTest, Episode, shorten
from agentrl.testing.rules import RuleBroken, in_time, judge_by, name_of, no_exception
from agentrl.types import Task

# Enough turns to see an env that rewards waiting.
PATIENCE = 16
# Lazy splits may be endless; this many tasks of each are compared.
COMPARED = 1000


def check_env(
    make: Callable[[], Env],
    splits: Sequence[str] = ("train", "dev"),
    tasks: int = 5,
    seconds: float = 30.0,
) -> None:
    """Hold an env to the rules of its kind.

    Args:
        make: the class, or a function that returns an instance with the options to test.
        splits: the env's splits; no two may share a task.
        tasks: of each split that are played.
        seconds: that one operation of the env may take.

    Raises:
        RulesBroken: with all rules that it breaks.
    """
    __tracebackhide__ = True
    judge_by(RULES, EnvUnderTest(make, splits, tasks, seconds), name_of(make))


async def has_tasks_that_json_can_carry(subject: EnvUnderTest) -> None:
    """Tasks are JSON-safe, belong to their split, have ids of their own, and come in a fixed order."""
    async with subject.env() as env, subject.env() as other:
        for split in subject.splits:
            tasks = subject.some(env, split, COMPARED)
            for task in tasks:
                _check_task(task, split)
            _check_ids([task.id for task in tasks], split)
            if not tasks == subject.some(env, split, COMPARED) == subject.some(other, split, COMPARED):
                raise RuleBroken(
                    "has tasks in a fixed order",
                    f"split {split!r} was different when asked again",
                    "derive tasks from a fixed seed, never from sets, clocks or the global random generator",
                )


def _check_task(task: Any, split: str) -> None:
    if not isinstance(task, Task):
        found = f"tasks({split!r}) holds a {type(task).__name__}"
        raise RuleBroken("has tasks", found, "return agentrl.Task values")
    if task.split != split:
        found = f"task {task.id!r} of split {split!r} says split={task.split!r}"
        raise RuleBroken("names the split", found, "pass split to Task")
    if found := _changed_by_json(task):
        remedy = "use only text, numbers, lists, and mappings with text as keys"
        raise RuleBroken("has JSON-safe tasks", found, remedy)


def _changed_by_json(task: Task) -> str:
    try:
        json_task = task_to_json(task)
        same = json.loads(json.dumps(json_task, allow_nan=False)) == json_task
    except (TypeError, ValueError) as error:
        return f"the data of task {task.id!r} cannot be written as JSON ({error})"
    return "" if same else f"the data of task {task.id!r} changes on its way through JSON"


def _check_ids(ids: list[str], split: str) -> None:
    if len(set(ids)) < len(ids):
        double = next(name for name in ids if ids.count(name) > 1)
        raise RuleBroken(
            "names its tasks", f"two tasks of {split!r} are called {double!r}", "make ids unique"
        )


async def keeps_its_splits_apart(subject: EnvUnderTest) -> None:
    """No task is in two splits, under whatever id."""
    async with subject.env() as env:
        for one, other in itertools.combinations(subject.splits, 2):
            first = {key: task for task in subject.some(env, one, COMPARED) for key in _identities(task)}
            for task in subject.some(env, other, COMPARED):
                twin = next((first[key] for key in _identities(task) if key in first), None)
                if twin is not None:
                    raise RuleBroken(
                        "keeps its splits apart",
                        f"task {twin.id!r} of {one!r} is task {task.id!r} of {other!r}",
                        "draw each split from entities of its own, else what is measured is memory",
                    )


def _identities(task: Task) -> Iterator[str]:
    yield f"id {task.id}"
    if task.data:
        with suppress(TypeError, ValueError):  # a rule of its own says so
            yield "data " + json.dumps(dict(task.data), sort_keys=True)


async def refuses_unknown_splits(subject: EnvUnderTest) -> None:
    """A split that does not exist is a usage error, not an empty one."""
    async with subject.env() as env:
        try:
            env.tasks("no-such-split")
        except UsageError:
            return
        except Exception as error:
            found = f"tasks('no-such-split') raised {type(error).__name__}: {error}"
        else:
            found = "tasks('no-such-split') returned tasks"
    raise RuleBroken(
        "refuses unknown splits", found, "raise agentrl.UsageError and name the splits there are"
    )


async def repeats_itself(subject: EnvUnderTest) -> None:
    """The same task, seed and actions make the same episode, whatever was played before."""
    async with subject.env() as env:
        tasks = subject.tasks(env)
        scripts = {task.id: subject.script(env, task) for task in tasks}
        fresh = {task.id: await subject.play_alone(task, scripts[task.id]) for task in tasks}
        for task in [*tasks, *reversed(tasks)]:
            await subject.play(env, task, NONSENSE[:2], seed=3)
            again = await subject.play(env, task, scripts[task.id])
            if difference := _difference(fresh[task.id], again):
                raise RuleBroken(
                    "repeats itself",
                    f"task {task.id!r} went another way when it was played again ({difference})",
                    "let reset set everything anew, and draw all randomness from its seed",
                )


async def keeps_instances_apart(subject: EnvUnderTest) -> None:
    """Envs that are played side by side do not touch each other."""
    async with subject.env() as env:
        tasks = subject.tasks(env)
        scripts = [subject.script(env, task) for task in tasks]
    pairs = [*zip(tasks, scripts, strict=True)]
    alone = [await subject.play_alone(*pair) for pair in pairs]
    together = await asyncio.gather(*(subject.play_alone(*pair) for pair in pairs))
    for task, one, other in zip(tasks, alone, together, strict=True):
        if difference := _difference(one, other):
            raise RuleBroken(
                "keeps instances apart",
                f"task {task.id!r} went another way while others were played beside it ({difference})",
                "hold the state of an episode in the instance, never in the class, the module or the task",
            )


def _difference(one: Episode, other: Episode) -> str:
    """Return where two episodes part, "" if nowhere."""
    if one == other:
        return ""
    seen = [*zip(one.observations, other.observations, strict=False), (one.outcome, other.outcome)]
    lengths = (len(one.observations), len(other.observations))
    before, after = next((pair for pair in seen if pair[0] != pair[1]), lengths)
    return f"{shorten(str(before))} became {shorten(str(after))}"


async def leaves_its_tasks_alone(subject: EnvUnderTest) -> None:
    """Playing does not change the task."""
    async with subject.env() as env:
        for task in subject.tasks(env):
            before = copy.deepcopy(task)
            await subject.play(env, task, subject.script(env, task))
            if task != before:
                found = f"playing task {task.id!r} changed its data"
                raise RuleBroken("leaves its tasks alone", found, "copy what you change")


async def solves_what_it_demonstrates(subject: EnvUnderTest) -> None:
    """A demonstration, played step by step, ends the episode with its last action and earns success."""
    async with subject.env() as env:
        for task in subject.tasks(env):
            script = subject.demonstration(env, task)
            if script is None:
                continue
            if not script or not all(isinstance(text, str) for text in script):
                found = f"demonstrate({task.id!r}) returned {shorten(str(script))}"
                raise RuleBroken("solves what it demonstrates", found, "return at least one text, or None")
            _check_demonstration(task, script, await subject.play(env, task, script))


def _check_demonstration(task: Task, script: list[str], episode: Episode) -> None:
    rule, remedy = "solves what it demonstrates", "let demonstrate return one text a turn, up to the end"
    steps = len(episode.observations) - 1
    if steps < len(script):
        found = f"task {task.id!r} is over after {steps} of {len(script)} demonstrated turns"
        raise RuleBroken(rule, found, remedy)
    if not episode.observations[-1].done:
        found = f"task {task.id!r} is not over after all {steps} demonstrated turns"
        raise RuleBroken(rule, found, remedy)
    if not episode.outcome.success:
        found = f"the demonstration of task {task.id!r} is judged a failure ({shorten(str(episode.outcome))})"
        raise RuleBroken(rule, found, "mend demonstrate or judge: the expert must earn full marks")


async def gives_nothing_for_nothing(subject: EnvUnderTest) -> None:
    """Doing nothing, nonsense or something huge neither raises nor succeeds."""
    deeds: list[list[str]] = [[], [""] * PATIENCE, *([text] * 2 for text in (*NONSENSE, HUGE))]
    async with subject.env() as env:
        task = subject.tasks(env)[0]
        for actions in deeds:
            episode = await subject.play(env, task, actions)
            if episode.outcome.success:
                shown = f"{len(actions)} times {shorten(actions[0])}" if actions else "nothing at all"
                raise RuleBroken(
                    "gives nothing for nothing",
                    f"task {task.id!r} counts as solved after {shown}",
                    "let judge look for evidence that the task was done",
                )


async def closes_in_peace(subject: EnvUnderTest) -> None:
    """Closing works before the first episode, during one, and twice."""
    async with subject.env() as unused, subject.env() as env:
        await subject.reset(env, subject.tasks(env)[0], 5)
        for each in (unused, env, unused, env):
            with no_exception("close", "let close work before, during and after an episode, and twice"):
                await in_time(each.close(), subject.seconds, "close")


RULES = (
    has_tasks_that_json_can_carry,
    keeps_its_splits_apart,
    refuses_unknown_splits,
    repeats_itself,
    keeps_instances_apart,
    leaves_its_tasks_alone,
    solves_what_it_demonstrates,
    gives_nothing_for_nothing,
    closes_in_peace,
)
