"""The rules of envs: those of their episodes are here, those of their tasks in `env_tasks`."""

import asyncio
import copy
from collections.abc import Callable, Sequence

from agentrl.interfaces import Env, Expert
from agentrl.testing.env_elsewhere import repeats_itself_elsewhere
from agentrl.testing.env_player import HUGE, NONSENSE, EnvUnderTest, Episode, shorten
from agentrl.testing.env_tasks import (
    has_tasks_that_json_can_carry,
    keeps_its_splits_apart,
    refuses_unknown_splits,
)
from agentrl.testing.env_traces import leaves_nothing_behind, lets_itself_be_cancelled
from agentrl.testing.rules import (
    Report,
    Rule,
    RuleBroken,
    RuleSkipped,
    in_time,
    judge_by,
    name_of,
    no_exception,
)
from agentrl.types import Task

# Enough turns to see an env that rewards waiting.
PATIENCE = 16


def check_env(
    make: Callable[[], Env],
    splits: Sequence[str] = ("train", "dev"),
    tasks: int = 5,
    seconds: float = 30.0,
    episodes: int = 0,
    report: Report | None = None,
    rules: Sequence[Rule[EnvUnderTest]] | None = None,
) -> None:
    """Hold an env to the rules of its kind.

    Those whose worlds live in another virtual environment play in the workers of one of them, as in a run.

    Args:
        make: the class, or a function that returns an instance with the options to test.
        splits: the env's splits; no two may share a task.
        tasks: of each split that are played.
        seconds: that one operation of the env may take.
        episodes: played one after the other to see whether threads, open files or memory, by more than 500
            bytes an episode, grow; 200 tell. None are played if it is 0.
        report: told of each rule, as soon as it was tried.
        rules: to try; None is all there are.

    Raises:
        RulesBroken: with all rules that it breaks.
    """
    __tracebackhide__ = True
    subject = EnvUnderTest(make, splits, tasks, seconds, episodes)
    judge_by(RULES if rules is None else rules, subject, name_of(make), report, subject.close)


async def repeats_itself(subject: EnvUnderTest) -> None:
    """The same task, seed and actions make the same episode, whatever was played before."""
    async with subject.env() as env:
        tasks = subject.tasks(env)
        scripts = {task.id: await subject.script(env, task) for task in tasks}
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
        scripts = [await subject.script(env, task) for task in tasks]
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
        tasks = subject.tasks(env)
        before = copy.deepcopy(tasks)
        scripts = [await subject.script(env, task) for task in tasks]
        for task, script, unchanged in zip(tasks, scripts, before, strict=True):
            await subject.play(env, task, script)
            if task != unchanged:
                found = f"playing task {task.id!r} changed its data"
                raise RuleBroken("leaves its tasks alone", found, "copy what you change")


async def solves_what_it_demonstrates(subject: EnvUnderTest) -> None:
    """A demonstration, played step by step, ends the episode with its last action and earns success."""
    demonstrated = 0
    async with subject.env() as env:
        for task in subject.tasks(env):
            found = subject.demonstration(env, task)
            demonstrated += found is not None
            if callable(found):
                await _check_experts(subject, env, task, found)
            elif found is not None:
                await _check_script(subject, env, task, found)
    if not demonstrated:
        raise RuleSkipped("the env demonstrates none of the tasks that were played")


async def _check_experts(subject: EnvUnderTest, env: Env, task: Task, expert: Expert) -> None:
    """Hold an expert, and the next one of the same task, to success whatever the seed."""
    another = subject.demonstration(env, task)
    assert callable(another), f"demonstrate({task.id!r}) gave an expert once, and then none"
    for each, seed in ((expert, 11), (another, 3)):
        episode = await subject.play(env, task, each, seed)
        if not episode.observations[-1].done:
            found = f"the expert of task {task.id!r} has not ended it after {len(episode.actions)} turns"
            raise RuleBroken("solves what it demonstrates", found, "let the expert end the episode")
        _check_success(task, episode)


async def _check_script(subject: EnvUnderTest, env: Env, task: Task, script: list[str]) -> None:
    if not script or not all(isinstance(text, str) for text in script):
        found = f"demonstrate({task.id!r}) returned {shorten(str(script))}"
        raise RuleBroken("solves what it demonstrates", found, "return at least one text, or None")
    episode = await subject.play(env, task, script)
    _check_length(task, script, episode)
    _check_success(task, episode)


def _check_length(task: Task, script: list[str], episode: Episode) -> None:
    rule, remedy = "solves what it demonstrates", "let demonstrate return one text a turn, up to the end"
    steps = len(episode.actions)
    if steps < len(script):
        found = f"task {task.id!r} is over after {steps} of {len(script)} demonstrated turns"
        raise RuleBroken(rule, found, remedy)
    if not episode.observations[-1].done:
        found = f"task {task.id!r} is not over after all {steps} demonstrated turns"
        raise RuleBroken(rule, found, remedy)


def _check_success(task: Task, episode: Episode) -> None:
    if not episode.outcome.success or episode.outcome.failed:
        verdict = "has failed checks" if episode.outcome.success else "is judged a failure"
        found = f"the demonstration of task {task.id!r} {verdict} ({shorten(str(episode.outcome))})"
        remedy = "mend demonstrate or judge: the expert must earn full marks"
        raise RuleBroken("solves what it demonstrates", found, remedy)


async def gives_nothing_for_nothing(subject: EnvUnderTest) -> None:
    """Doing nothing, nonsense or something huge neither raises nor succeeds."""
    idle: list[list[str]] = [[], [""] * PATIENCE]
    async with subject.env() as env:
        first, *others = subject.tasks(env)
        for actions in (*idle, *([text] * 2 for text in (*NONSENSE, HUGE))):
            await _check_nothing(subject, env, first, actions)
        for task in others:
            for actions in idle:
                await _check_nothing(subject, env, task, actions)


async def _check_nothing(subject: EnvUnderTest, env: Env, task: Task, actions: Sequence[str]) -> None:
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
    async with subject.env(apart=True) as unused, subject.env(apart=True) as env:
        await subject.reset(env, subject.tasks(env)[0], 5)
        for each in (unused, env, unused, env):
            with no_exception("close", "let close work before, during and after an episode, and twice"):
                await in_time(each.close(), subject.seconds, "close")


RULES = (
    has_tasks_that_json_can_carry,
    keeps_its_splits_apart,
    refuses_unknown_splits,
    repeats_itself,
    repeats_itself_elsewhere,
    keeps_instances_apart,
    leaves_its_tasks_alone,
    solves_what_it_demonstrates,
    gives_nothing_for_nothing,
    closes_in_peace,
    lets_itself_be_cancelled,
    leaves_nothing_behind,
)
