"""The conformance kit for rewards, agents and curricula."""

import asyncio
import random
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from agentrl import (
    Action,
    Agent,
    Conversation,
    Curriculum,
    Group,
    Observation,
    Outcome,
    Reward,
    Task,
    Trajectory,
    user,
)
from agentrl.testing import RulesBroken, check_agent, check_curriculum, check_reward, make_trajectory
from agentrl.types import Span


def assert_told(error: RulesBroken, fault: str, remedy: str) -> None:
    """Hold the report to a broken rule that says both."""
    remedies = [
        broken.remedy for broken in error.broken if re.search(fault, f"{broken.rule}: {broken.found}", re.S)
    ]
    assert any(re.search(remedy, each) for each in remedies), str(error)


# Rewards


class Brevity(Reward):
    """Success in fewer turns scores higher."""

    async def score(self, trajectory: Trajectory) -> float:
        assert trajectory.outcome
        return trajectory.outcome.success / (1 + len(trajectory.turns))


class PaysForIdleness(Brevity):
    async def score(self, trajectory: Trajectory) -> float:
        return 1 / (1 + len(trajectory.turns))


class PaysNobody(Brevity):
    """Compares the answer with what it never is."""

    async def score(self, trajectory: Trajectory) -> float:
        assert trajectory.outcome
        return float(trajectory.outcome.answer == trajectory.outcome.references)


class CountsDeliveries(Brevity):
    """Reads what the outcomes of one env only hold."""

    async def score(self, trajectory: Trajectory) -> float:
        assert trajectory.outcome
        return trajectory.outcome.metrics.get("deliveries", 0.0)


class PrefersWrongAnswers(Brevity):
    async def score(self, trajectory: Trajectory) -> float:
        assert trajectory.outcome
        return float(trajectory.outcome.answer == "Rome")


class CountsFailedChecks(Brevity):
    async def score(self, trajectory: Trajectory) -> float:
        assert trajectory.outcome
        failed = len(trajectory.outcome.failed)
        return 1.0 if trajectory.outcome.success else (failed - 1) / 10


class InPercent(Brevity):
    async def score(self, trajectory: Trajectory) -> float:
        return 100 * await super().score(trajectory)


class Blocks(Brevity):
    async def score(self, trajectory: Trajectory) -> float:
        if any(len(turn.action.text) > 10_000 for turn in trajectory.turns):
            time.sleep(0.6)
        return await super().score(trajectory)


class ReadsTheLastTurn(Brevity):
    async def score(self, trajectory: Trajectory) -> float:
        return float(len(trajectory.turns[-1].action.text))


class NeedsAReference(Brevity):
    async def score(self, trajectory: Trajectory) -> float:
        assert trajectory.outcome
        return float(trajectory.outcome.answer == trajectory.outcome.references[0])


class IsNotANumber(Brevity):
    async def score(self, trajectory: Trajectory) -> float:
        return float("nan") if not trajectory.turns else 1.0


class IsNone(Brevity):
    async def score(self, trajectory: Trajectory) -> float:
        return cast(float, None)


class Counts(Brevity):
    seen = 0

    async def score(self, trajectory: Trajectory) -> float:
        self.seen += 1
        return float(self.seen)


class Rolls(Brevity):
    async def score(self, trajectory: Trajectory) -> float:
        return random.random()


class KeepsWhatItScores(Brevity):
    """Scores another trajectory than it was given, if that one came while it waited."""

    async def score(self, trajectory: Trajectory) -> float:
        self.trajectory = trajectory
        await asyncio.sleep(0)
        return await super().score(self.trajectory)


class Scribbles(Brevity):
    async def score(self, trajectory: Trajectory) -> float:
        trajectory.rewards["brevity"] = 1.0
        return 1.0


class Dawdles(Brevity):
    async def score(self, trajectory: Trajectory) -> float:
        await asyncio.sleep(600)
        return 1.0


class NeedsAFolder(Brevity):
    async def start(self, folder: Path | None) -> None:
        assert folder is not None


class ClosesOnce(Brevity):
    async def start(self, folder: Path | None) -> None:
        self.client = ["a connection"]

    async def close(self) -> None:
        self.client.pop()


def test_a_good_reward_passes() -> None:
    check_reward(Brevity)
    check_reward(lambda: Brevity(), [make_trajectory(["one"])])


def test_a_reward_says_if_it_is_of_another_sort() -> None:
    check_reward(PaysForIdleness, shaping=True)
    check_reward(InPercent, between=(0, 100))


def test_a_reward_for_one_env_is_shown_what_it_pays_for() -> None:
    delivered = make_trajectory()
    delivered.outcome = Outcome(True, metrics={"deliveries": 1.0})
    check_reward(CountsDeliveries, [delivered])
    with pytest.raises(
        RulesBroken, match=r"pays for success: .*; .* pass such trajectories, a success among"
    ):
        check_reward(CountsDeliveries)


@pytest.mark.parametrize(
    ("reward", "rule", "remedy"),
    [
        (ReadsTheLastTurn, "cut off before its first turn, raised IndexError", "however it ended"),
        (NeedsAReference, "without references, raised IndexError", "every trajectory that has an outcome"),
        (IsNotANumber, "scores with finite numbers: .* gave nan", "finite number"),
        (IsNone, "scores with finite numbers: .* gave None", "finite number"),
        (Counts, "scores alike", "no counters"),
        (Rolls, "scores alike", "random numbers"),
        (
            KeepsWhatItScores,
            "scores alike: a trajectory, a success, got 0.3333.* alone, and 0.0 while others were scored",
            "keep nothing of a trajectory in the instance",
        ),
        (Scribbles, "leaves trajectories alone", "weight 0"),
        (PaysForIdleness, "pays nothing for nothing: one cut off before its first turn scored 1", "shaping"),
        (PaysNobody, "pays for success: a success scored 0, and one in which nothing .* 0", "never holds"),
        (PrefersWrongAnswers, "prefers what is right: a wrong answer scored 1, half of it 0", "turned round"),
        (CountsFailedChecks, "prefers what is right: 1 of 3 checks passed scored 0.1, 2 of", "turned round"),
        (InPercent, "stays in its range: a trajectory, a success, got 33.3333", "between=.least, greatest"),
        (Blocks, "keeps nobody waiting: .* waiting for 0.[67] s", "asyncio.to_thread"),
        (NeedsAFolder, "raises nothing: starting the reward raised AssertionError", "`folder` None"),
        (ClosesOnce, "raises nothing: closing the reward raised IndexError", "at any time, and twice"),
        (Dawdles, "answers in time: .* took longer than 0.05 s", "`seconds`"),
    ],
)
def test_a_bad_reward_is_told_what_is_wrong(reward: type[Reward], rule: str, remedy: str) -> None:
    with pytest.raises(RulesBroken) as caught:
        check_reward(reward, seconds=0.05 if reward is Dawdles else 30)
    assert_told(caught.value, rule, remedy)


def test_the_users_own_trajectories_are_scored_too() -> None:
    class Fussy(Brevity):
        async def score(self, trajectory: Trajectory) -> float:
            if trajectory.seed == 99:
                raise ValueError("not this one")
            return 1.0

    with pytest.raises(RulesBroken, match="yours, raised ValueError: not this one"):
        check_reward(Fussy, [make_trajectory(seed=99)])


def test_a_reward_that_needs_torch_is_told_to_import_it_late(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "import agentrl\nclass Heavy(agentrl.Reward):\n    async def score(self, trajectory):\n"
    (tmp_path / "heavy_reward.py").write_text(
        f"{source}        import torch\n        return float(trajectory.outcome.success)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import heavy_reward  # type: ignore[import-not-found]

    with pytest.raises(RulesBroken, match=r"needs no torch: .*; import it inside the method"):
        check_reward(heavy_reward.Heavy)
    check_reward(heavy_reward.Heavy, needs_torch=True)


# Agents


class Talker(Agent):
    """Passes on what is said."""

    async def act(self, observation: Observation, conversation: Conversation) -> Action:
        conversation.say(user(observation.text))
        return Action(await conversation.ask(stop=("</answer>",)))


class Forgetful(Talker):
    """Sees nothing but the newest observation; what was before is in segments of its own."""

    async def act(self, observation: Observation, conversation: Conversation) -> Action:
        conversation.restart(user(observation.text))
        return Action(await conversation.ask())


class TrainsOnObservations(Talker):
    async def act(self, observation: Observation, conversation: Conversation) -> Action:
        action = await super().act(observation, conversation)
        segment = conversation.segments[-1]
        segment.spans[-1] = Span(0, [0.0] * len(segment.token_ids), conversation.turn)
        return action


class DropsWhatWasSampled(Talker):
    async def act(self, observation: Observation, conversation: Conversation) -> Action:
        action = await super().act(observation, conversation)
        conversation.segments[:] = conversation.segments[-1:]
        conversation.segments[-1].spans[:] = conversation.segments[-1].spans[-1:]
        return action


class MergesSegments(Forgetful):
    async def act(self, observation: Observation, conversation: Conversation) -> Action:
        action = await super().act(observation, conversation)
        if len(conversation.segments) == 2:
            first, second = conversation.segments
            for span in second.spans:
                span.start += len(first.token_ids)
            first.token_ids += second.token_ids
            first.spans += second.spans
            del conversation.segments[1]
        return action


class HidesWhatWasRead(Talker):
    async def act(self, observation: Observation, conversation: Conversation) -> Action:
        action = await super().act(observation, conversation)
        segment = conversation.segments[-1]
        segment.token_ids[0] = 65
        return action


class ExpectsTags(Talker):
    async def act(self, observation: Observation, conversation: Conversation) -> Action:
        action = await super().act(observation, conversation)
        return Action(action.text.split("<answer>")[1])


class ReturnsText(Talker):
    async def act(self, observation: Observation, conversation: Conversation) -> Action:
        return cast(Action, (await super().act(observation, conversation)).text)


class NeverAsks(Talker):
    async def act(self, observation: Observation, conversation: Conversation) -> Action:
        return Action("north")


class AsksForEver(Talker):
    async def act(self, observation: Observation, conversation: Conversation) -> Action:
        while True:
            conversation.restart(user("Again!"))
            if "please" in await conversation.ask():
                return Action("thanks")


class LooksAtTheClock(Talker):
    async def act(self, observation: Observation, conversation: Conversation) -> Action:
        return await super().act(Observation(f"{time.time_ns()}: {observation.text}"), conversation)


class SharesMemory(Talker):
    memory: list[str] = []

    async def act(self, observation: Observation, conversation: Conversation) -> Action:
        self.memory.append(observation.text)
        return await super().act(Observation(f"{len(self.memory)}"), conversation)


@pytest.mark.parametrize("agent", [Talker, Forgetful])
def test_a_good_agent_passes(agent: type[Agent]) -> None:
    check_agent(agent, completions=["<answer>Paris</answer>"])


@pytest.mark.parametrize(
    ("agent", "rule", "remedy"),
    [
        (TrainsOnObservations, "trains on what was sampled: the spans hold", "conversation.segments alone"),
        (DropsWhatWasSampled, "trains on what was sampled", "conversation.segments alone"),
        (MergesSegments, "keeps its segments apart: when the model spoke, time 2", "conversation.restart"),
        (HidesWhatWasRead, "keeps its segments apart", "leave conversation.segments alone"),
        (ExpectsTags, "raises nothing: act, while the model says '', raised IndexError", "into an action"),
        (ReturnsText, "returns actions: act, .* returned a str", r"return agentrl.Action\(text\)"),
        (NeverAsks, "asks the model", "conversation.ask"),
        (AsksForEver, "comes to an end: act asked the model 100 times", "after a few tries"),
        (LooksAtTheClock, "repeats itself", "no clock"),
        (SharesMemory, "repeats itself", "state in the instance"),
    ],
)
def test_a_bad_agent_is_told_what_is_wrong(agent: type[Agent], rule: str, remedy: str) -> None:
    with pytest.raises(RulesBroken) as caught:
        check_agent(agent)
    assert_told(caught.value, rule, remedy)


# Curricula


class RoundRobin(Curriculum):
    """One after the other."""

    def start(self, tasks: Sequence[Task], seed: int) -> None:
        self.tasks, self.next = list(tasks), seed

    def choose(self, n: int) -> list[Task]:
        self.next += n
        return [self.tasks[(self.next - place) % len(self.tasks)] for place in range(n)]

    def state(self) -> dict[str, Any]:
        return {"next": self.next}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.next = state["next"]


class ForgetsItsPlace(RoundRobin):
    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        pass


class KeepsTasksInItsState(RoundRobin):
    def state(self) -> dict[str, Any]:
        return {"next": self.next, "tasks": self.tasks}


class Stingy(RoundRobin):
    def choose(self, n: int) -> list[Task]:
        return super().choose(n)[: len(self.tasks)]


class Inventive(RoundRobin):
    def choose(self, n: int) -> list[Task]:
        return [Task("my own")] * n


class Unsteady(RoundRobin):
    def choose(self, n: int) -> list[Task]:
        return random.choices(self.tasks, k=n)


class ExpectsTrajectories(RoundRobin):
    def learn(self, groups: Sequence[Group]) -> None:
        for group in groups:
            sum(group.rewards) / len(group.rewards)


class Rewrites(RoundRobin):
    def learn(self, groups: Sequence[Group]) -> None:
        for group in groups:
            group.trajectories.clear()


class Lavish(RoundRobin):
    def sizes(self, tasks: Sequence[Task], group_size: int) -> list[int]:
        return [group_size, *[group_size + 1] * (len(tasks) - 1)]


class SkipsGroups(RoundRobin):
    def sizes(self, tasks: Sequence[Task], group_size: int) -> list[int]:
        return [0] * len(tasks)


class Lopsided(RoundRobin):
    def sizes(self, tasks: Sequence[Task], group_size: int) -> list[int]:
        return [1] * (len(tasks) - 1) + [len(tasks) * group_size - len(tasks) + 1]


@pytest.mark.parametrize("curriculum", [RoundRobin, Lopsided])
def test_a_good_curriculum_passes(curriculum: type[Curriculum]) -> None:
    check_curriculum(curriculum)


@pytest.mark.parametrize(
    ("curriculum", "rule", "remedy"),
    [
        (ForgetsItsPlace, "goes on exactly: after 1 updates", "into state"),
        (KeepsTasksInItsState, "raises nothing: state raised TypeError", "as JSON"),
        (Stingy, r"chooses as many as asked: choose\(15\) returned 7", "repeating some"),
        (Inventive, "chooses from what there is", "that start was given"),
        (Unsteady, "repeats itself", "from the seed that start gets"),
        (ExpectsTrajectories, "raises nothing: learn raised ZeroDivisionError", "empty ones"),
        (Rewrites, "leaves groups alone", "copy what you change"),
        (Lavish, r"shares out what there is: sizes gave \[8, 9, 9\] for 3 tasks", "24 in all at most"),
        (SkipsGroups, r"shares out what there is: sizes gave \[0, 0, 0\]", "at least 1"),
    ],
)
def test_a_bad_curriculum_is_told_what_is_wrong(curriculum: type[Curriculum], rule: str, remedy: str) -> None:
    with pytest.raises(RulesBroken) as caught:
        check_curriculum(curriculum)
    assert_told(caught.value, rule, remedy)
