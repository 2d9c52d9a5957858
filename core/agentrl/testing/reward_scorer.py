"""Scores trajectories of every sort for the rules of rewards, holding each score to what every score owes."""

import asyncio
import copy
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from agentrl.interfaces import Reward
from agentrl.testing.rules import RuleBroken, in_time, no_exception
from agentrl.testing.samples import make_trajectory
from agentrl.types import Outcome, Trajectory

ODD = "\x00\ud800\U0001f40d</answer><\u00e9\u0301\u4f60"
LONG = "word " * 20_000


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
        ("full of odd characters", make_trajectory((ODD,), ODD, False)),
        ("very long", very_long()),
        ("judged a failure without a word", bare),
    ]


def very_long() -> Trajectory:
    """Return a trajectory of 20,000 words."""
    return make_trajectory((LONG,), LONG, False)


def idle_trajectories() -> list[tuple[str, Trajectory]]:
    """Return trajectories in which nothing was achieved, by what they are."""
    return [
        ("one that never answered", make_trajectory(answer=None, success=False)),
        ("one cut off by its turns", make_trajectory(answer=None, success=False, stop="max_turns")),
        *empty_trajectories(),
    ]


def empty_trajectories() -> list[tuple[str, Trajectory]]:
    """Return trajectories in which nothing was said, by what they are."""
    return [
        (
            "one cut off before its first turn",
            make_trajectory((), None, False, stop="max_tokens", lengths=()),
        ),
        ("one that said nothing", make_trajectory(("",), None, False, lengths=(1,))),
    ]


@asynccontextmanager
async def started(reward: Reward) -> AsyncIterator[None]:
    """Start the reward, and close it at the end, as a run does."""
    try:
        with no_exception("starting the reward", "let it start with these options, and with `folder` None"):
            await reward.start(None)
        yield
    finally:
        with no_exception("closing the reward", "let `close` be called at any time, and twice"):
            await reward.close()
            await reward.close()


@dataclass(frozen=True, slots=True)
class RewardUnderTest:
    """Scores trajectories, holding each score to what every score owes."""

    make: Callable[[], Reward]
    trajectories: Sequence[tuple[str, Trajectory]]
    seconds: float
    between: tuple[float, float] = (-1.0, 1.0)
    shaping: bool = False

    def scores(self, reward: Reward, trajectories: Sequence[tuple[str, Trajectory]]) -> list[float]:
        """Return the scores of trajectories, whatever scoring does to them."""

        async def score_all() -> list[float]:
            async with started(reward):
                return [await self.score(reward, *each) for each in copy.deepcopy(trajectories)]

        return asyncio.run(score_all())

    def scores_together(self, reward: Reward, trajectories: Sequence[tuple[str, Trajectory]]) -> list[float]:
        """Return the scores of trajectories that are scored side by side, as in a run.

        A reward that takes one after the other has the time of all.
        """
        patient = replace(self, seconds=self.seconds * len(trajectories))

        async def score_all() -> list[float]:
            async with started(reward):
                scores = (patient.score(reward, *each) for each in copy.deepcopy(trajectories))
                return await asyncio.gather(*scores)

        return asyncio.run(score_all())

    async def score_as_it_is(self, reward: Reward, kind: str, trajectory: Trajectory) -> float:
        """Return the score of this very trajectory, with the reward started for it alone."""
        async with started(reward):
            return await self.score(reward, kind, trajectory)

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
