"""The rules of rewards."""

import asyncio
import copy
import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agentrl.interfaces import Reward
from agentrl.testing.rules import RuleBroken, in_time, judge_by, name_of, no_exception
from agentrl.testing.samples import make_trajectory
from agentrl.types import Outcome, Trajectory


def check_reward(
    make: Callable[[], Reward],
    trajectories: Sequence[Trajectory] = (),
    needs_torch: bool = False,
    seconds: float = 30.0,
) -> None:
    """Hold a reward to the rules of its kind.

    Args:
        make: the class, or a function that returns an instance with the options to test.
        trajectories: to score besides the built-in ones, for rewards of one env's episodes.
        needs_torch: whether the reward may import torch.
        seconds: that scoring one trajectory may take.

    Raises:
        RulesBroken: with all rules that it breaks.
    """
    __tracebackhide__ = True
    every = [*built_in_trajectories(), *(("yours", trajectory) for trajectory in trajectories)]
    rules = RULES if needs_torch else (*RULES, needs_no_torch)
    judge_by(rules, RewardUnderTest(make, every, seconds), name_of(make))


_ODD = "\x00\ud800\U0001f40d</answer><\u00e9\u0301\u4f60"
_LONG = "word " * 20_000


def built_in_trajectories() -> list[tuple[str, Trajectory]]:
    """Return trajectories of every sort that a run can bring forth, by what they are."""
    bare = make_trajectory()
    bare.outcome = Outcome(False)
    return [
        ("a success", make_trajectory()),
        ("answered wrongly", make_trajectory(answer="Rome", success=False)),
        ("answered with nothing", make_trajectory(answer="", success=False)),
        ("never answered", make_trajectory(answer=None, success=False)),
        ("cut off by its turns", make_trajectory(answer=None, success=False, stop="max_turns")),
        ("cut off by its tokens", make_trajectory(answer=None, success=False, stop="max_tokens")),
        ("cut off before its first turn", make_trajectory((), None, False, stop="max_tokens", lengths=())),
        ("without references", make_trajectory(references=())),
        ("with several references", make_trajectory(references=("Paris", "the city of Paris", ""))),
        ("full of odd characters", make_trajectory((_ODD,), _ODD, False)),
        ("very long", make_trajectory((_LONG,), _LONG, False)),
        ("judged a failure without a word", bare),
    ]


@dataclass(frozen=True, slots=True)
class RewardUnderTest:
    """Scores trajectories, holding each score to what every score owes."""

    make: Callable[[], Reward]
    trajectories: Sequence[tuple[str, Trajectory]]
    seconds: float

    def scores(self, reward: Reward, trajectories: Sequence[tuple[str, Trajectory]]) -> list[float]:
        """Return the scores of trajectories, whatever scoring does to them."""

        async def score_all() -> list[float]:
            return [await self.score(reward, *each) for each in copy.deepcopy(trajectories)]

        return asyncio.run(score_all())

    async def score(self, reward: Reward, kind: str, trajectory: Trajectory) -> float:
        """Return the score of one trajectory, a finite float."""
        what = f"scoring a trajectory, {kind},"
        with no_exception(what, "score every trajectory that has an outcome, however it ended"):
            score: Any = await in_time(reward.score(trajectory), self.seconds, what)
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            remedy = "return a finite number, with float(...) if need be"
            raise RuleBroken("scores with finite numbers", f"{what} gave {score!r:.80}", remedy)
        return float(score)

    def new(self) -> Reward:
        """Return a fresh reward."""
        with no_exception(
            "making the reward", "let it be made without options, or check a function that does"
        ):
            return self.make()


def scores_everything(subject: RewardUnderTest) -> None:
    """Every trajectory gets a finite number: solved, failed, cut off, empty."""
    subject.scores(subject.new(), subject.trajectories)


def scores_alike(subject: RewardUnderTest) -> None:
    """The same trajectory gets the same score, whatever was scored before, in whichever instance."""
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


def leaves_trajectories_alone(subject: RewardUnderTest) -> None:
    """Scoring does not change the trajectory."""
    reward = subject.new()
    for kind, trajectory in subject.trajectories:
        before = copy.deepcopy(trajectory)
        asyncio.run(subject.score(reward, kind, trajectory))
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
from agentrl.testing.rewards import RewardUnderTest, built_in_trajectories
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
        return
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
    leaves_trajectories_alone,
)
