"""The rules of rewards; those that compare trajectories with one another are in `reward_order`."""

import asyncio
import copy
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

from agentrl.interfaces import Reward
from agentrl.testing.reward_order import pays_for_success, pays_nothing_for_nothing, prefers_what_is_right
from agentrl.testing.reward_scorer import RewardUnderTest, built_in_trajectories, started, very_long
from agentrl.testing.rules import Report, RuleBroken, RuleSkipped, judge_by, left_out, name_of
from agentrl.testing.samples import make_trajectory
from agentrl.types import Trajectory

# Seconds for which scoring one trajectory may keep all others waiting.
MOST_BLOCKED = 0.5


def check_reward(
    make: Callable[[], Reward],
    trajectories: Sequence[Trajectory] = (),
    needs_torch: bool = False,
    seconds: float = 30.0,
    between: tuple[float, float] = (-1.0, 1.0),
    shaping: bool = False,
    report: Report | None = None,
) -> None:
    """Hold a reward to the rules of its kind.

    Args:
        make: the class, or a function that returns an instance with the options to test.
        trajectories: to score besides the built-in ones, for rewards of one env's episodes; a success
            should be among them.
        needs_torch: whether the reward may import torch.
        seconds: that scoring one trajectory may take.
        between: the least and the greatest score there may be.
        shaping: whether doing nothing, or worse, may score as much as success or more: in a small addition
            to rewards that say what is right.
        report: told of each rule, as soon as it was tried.

    Raises:
        RulesBroken: with all rules that it breaks.
    """
    __tracebackhide__ = True
    every = [*built_in_trajectories(), *(("yours", trajectory) for trajectory in trajectories)]
    rules = (*RULES, left_out("needs_no_torch", "it may: needs_torch") if needs_torch else needs_no_torch)
    subject = RewardUnderTest(make, every, seconds, between, shaping)
    judge_by(rules, subject, name_of(make), report)


def scores_everything(subject: RewardUnderTest) -> None:
    """Every trajectory gets a finite number: solved, failed, cut off, empty."""
    subject.scores(subject.new(), subject.trajectories)


def scores_alike(subject: RewardUnderTest) -> None:
    """The same trajectory gets the same score, whatever was scored before or beside it, in every instance."""
    reward = subject.new()
    first = subject.scores(reward, subject.trajectories)
    again = subject.scores(reward, subject.trajectories[::-1])[::-1]
    fresh = [subject.scores(subject.new(), [each])[0] for each in subject.trajectories]
    for (kind, _), *scores in zip(subject.trajectories, first, again, fresh, strict=True):
        if len(set(scores)) > 1:
            raise RuleBroken(
                "scores alike",
                f"a trajectory, {kind}, got {', '.join(map(str, scores))}",
                "let the score depend on the trajectory only: no counters, clocks or random numbers",
            )
    together = subject.scores_together(subject.new(), subject.trajectories)
    for (kind, _), alone, beside in zip(subject.trajectories, first, together, strict=True):
        if alone != beside:
            raise RuleBroken(
                "scores alike",
                f"a trajectory, {kind}, got {alone} alone, and {beside} while others were scored beside it",
                "keep nothing of a trajectory in the instance: many are scored side by side",
            )


def stays_in_its_range(subject: RewardUnderTest) -> None:
    """Scores are of one size, so that weights mean something."""
    low, high = subject.between
    scores = subject.scores(subject.new(), subject.trajectories)
    for (kind, _), score in zip(subject.trajectories, scores, strict=True):
        if not low <= score <= high:
            raise RuleBroken(
                "stays in its range",
                f"a trajectory, {kind}, got {score:g}, which is not between {low:g} and {high:g}",
                "scale scores: how much they count is up to weights; or pass between=(least, greatest)",
            )


def keeps_nobody_waiting(subject: RewardUnderTest) -> None:
    """While one trajectory is scored, others can be: nothing blocks for long."""
    reward = subject.new()
    for kind, trajectory in (("a success", make_trajectory()), ("very long", very_long())):
        blocked = min(asyncio.run(_longest_silence(subject, reward, kind, trajectory)) for _ in range(3))
        if blocked > MOST_BLOCKED:
            raise RuleBroken(
                "keeps nobody waiting",
                f"scoring a trajectory, {kind}, kept everything else waiting for {blocked:.1f} s",
                "await what takes long, by asyncio.to_thread if need be, or do it once, when it is made",
            )


async def _longest_silence(
    subject: RewardUnderTest, reward: Reward, kind: str, trajectory: Trajectory
) -> float:
    """Return for how long at most nothing else came to its turn while a trajectory was scored, seconds."""
    beats = [time.monotonic()]

    async def beat() -> None:
        while True:
            beats.append(time.monotonic())
            await asyncio.sleep(0.01)

    async with started(reward):
        beating = asyncio.create_task(beat())
        await asyncio.sleep(0)
        try:
            await subject.score(reward, kind, trajectory)
            beats.append(time.monotonic())
        finally:
            beating.cancel()
    return max(after - before for before, after in pairwise(beats))


def leaves_trajectories_alone(subject: RewardUnderTest) -> None:
    """Scoring does not change the trajectory."""
    reward = subject.new()
    for kind, trajectory in subject.trajectories:
        before = copy.deepcopy(trajectory)
        asyncio.run(subject.score_as_it_is(reward, kind, trajectory))
        if trajectory != before:
            raise RuleBroken(
                "leaves trajectories alone",
                f"scoring a trajectory, {kind}, changed it",
                "copy what you change; to add a number, use a reward of weight 0",
            )


# Runs in a process where torch cannot be imported. A class that this process cannot find is not looked at.
_WITHOUT_TORCH = """
import importlib, json, sys
path, module, name, seconds = json.loads(sys.argv[1])
sys.path[:] = path
sys.modules["torch"] = None
from agentrl.testing.reward_scorer import RewardUnderTest, built_in_trajectories
try:
    reward = importlib.import_module(module)
    for part in name.split("."):
        reward = getattr(reward, part)
except ModuleNotFoundError as error:
    if error.name in {module, module.partition(".")[0]}:
        sys.exit(0)
    raise
RewardUnderTest(reward, [], seconds).scores(reward(), built_in_trajectories())
"""


def needs_no_torch(subject: RewardUnderTest) -> None:
    """The reward works where torch is not installed."""
    make = subject.make
    if not isinstance(make, type) or "<locals>" in make.__qualname__ or make.__module__ == "__main__":
        raise RuleSkipped("only a class that can be imported is looked at")
    target = json.dumps([sys.path, make.__module__, make.__qualname__, subject.seconds])
    command = [sys.executable, "-c", _WITHOUT_TORCH, target]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode and "torch" in done.stderr:
        last = done.stderr.strip().splitlines()[-1]
        remedy = "import it inside the method that needs it, or pass needs_torch=True"
        raise RuleBroken("needs no torch", f"without torch it fails ({last})", remedy)


RULES: tuple[Callable[[RewardUnderTest], None], ...] = (
    scores_everything,
    scores_alike,
    stays_in_its_range,
    pays_nothing_for_nothing,
    pays_for_success,
    prefers_what_is_right,
    leaves_trajectories_alone,
    keeps_nobody_waiting,
)
