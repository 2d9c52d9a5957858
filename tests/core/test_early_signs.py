"""When the reward of training and what is measured on held-out tasks part."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from agentrl import Group, Outcome, Task, Trajectory, UsageError, hookimpl
from agentrl.config import RunConfig
from agentrl.early_signs import UPDATES, Beside, EarlySigns, FlatRewards, rewards_between
from agentrl.evaluation import Evaluation
from agentrl.hooks import Hooks
from agentrl.judging import Judge
from agentrl.statistics import estimate


def evaluation(success: float, tasks: int = 100) -> Evaluation:
    right = round(success * tasks)
    found = estimate([[1.0]] * right + [[0.0]] * (tasks - right), proportion=True)
    return Evaluation("dev", tasks, tasks, 0, {"success": found, "exact_match": found})


def rewards(*of_steps: float) -> list[dict[str, Any]]:
    return [{"step": step, "reward": reward} for step, reward in enumerate(of_steps, start=1)]


def look(
    of_steps: Sequence[float], *curve: float, every: int = 4, told: list[str] | None = None, **said: Any
) -> Beside:
    """Return what is said at the last evaluation of a curve of success, one every so many steps."""
    config = RunConfig(**{"env": "none", "agent": "none", "rewards": {"format": 1.0}, **said})
    signs = EarlySigns(config, (told if told is not None else []).append)
    evaluations: dict[int, Evaluation] = {}
    found = Beside()
    for place, success in enumerate(curve):
        now = evaluation(success)
        found = signs.look(place * every, now, evaluations, rewards(*of_steps)[: place * every])
        evaluations[place * every] = now
    return found


def test_rewards_are_of_the_updates_between_two_evaluations() -> None:
    rows = [{"step": step, "reward": step / 10} for step in range(1, 7)] + [{"step": 7, "reward": None}]
    assert rewards_between(rows, 2, 7) == [0.3, 0.4, 0.5, 0.6]
    assert rewards_between(rows, 7, 7) == []


def test_a_reward_that_rises_while_held_out_success_falls_is_a_sign() -> None:
    told: list[str] = []
    found = look([0.1, 0.2, 0.3, 0.4], 0.5, 0.3, told=told)
    assert found.train_reward == pytest.approx(0.25)
    assert [each.metric for each in found.parted] == ["success"]
    (sign,) = told
    assert "since step 0 the reward in training rose from 0.150 to 0.350" in sign
    assert "success on held-out tasks fell from 0.500 to 0.300 (95% interval 0.219 to 0.396)" in sign


def test_a_reward_that_rises_far_while_success_stands_still_is_a_sign() -> None:
    told: list[str] = []
    assert look([0.2, 0.2, 0.9, 0.9], 0.1, 0.12, told=told).parted
    assert "success on held-out tasks only went from 0.100 to 0.120" in told[0]


def test_what_happened_slowly_is_seen_from_where_it_began() -> None:
    steady = [0.2 + 0.05 * step for step in range(16)]
    found = look(steady, 0.30, 0.28, 0.26, 0.24, 0.22)
    assert [each.since for each in found.parted] == [0]
    # And what was good at first, from where it turned.
    found = look(steady, 0.2, 0.5, 0.5, 0.3, 0.2)
    assert [each.since for each in found.parted] == [4]


@pytest.mark.parametrize(
    ("of_steps", "before", "now"),
    [
        ([0.4, 0.3, 0.2, 0.1], 0.5, 0.3),  # the reward falls, too
        ([0.10, 0.15, 0.20, 0.25], 0.5, 0.45),  # that may be chance
        ([0.1, 0.2, 0.3, 0.4], 0.5, 0.7),  # success rises
        ([0.2, 0.2, 0.9, 0.9], 0.97, 0.97),  # it could hardly rise
        ([], 0.5, 0.1),
    ],
)
def test_nothing_else_is(of_steps: list[float], before: float, now: float) -> None:
    assert not look(of_steps, before, now).parted


def test_a_rise_counts_in_proportion_to_the_weights_of_the_rewards() -> None:
    # Ten times the reward, ten times the weight: success went along.
    assert not look([2, 2, 8, 8], 0.2, 0.75, rewards={"success": 10.0}).parted
    assert look([2, 2, 8, 8], 0.2, 0.25, rewards={"success": 10.0}).parted


def test_it_is_said_once_and_recorded_every_time() -> None:
    told: list[str] = []
    found = look([0.2, 0.2, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9], 0.1, 0.12, 0.1, told=told)
    assert len(told) == 1
    assert found.numbers() == {"eval/train_reward": pytest.approx(0.9), "eval/parted": 1.0}
    (row,) = found.to_json()["parted"]
    assert (row["metric"], row["since"]) == ("success", 0)


def test_other_metrics_may_be_audited_and_must_be_measured() -> None:
    audit = {"evaluation": {"audit": ["exact_match"]}}
    assert [each.metric for each in look([0.1, 0.9], 0.5, 0.3, every=2, **audit).parted] == ["exact_match"]
    with pytest.raises(UsageError, match="'exactmatch', which is not measured; did you mean 'exact_match'"):
        look([], 0.5, evaluation={"audit": ["exactmatch"]})


def update(*rewards: float) -> list[Group]:
    return [Group(Task("a"), [Trajectory(Task("a"), reward=reward) for reward in rewards])]


def test_a_reward_that_is_the_same_for_all_is_told_once() -> None:
    told: list[str] = []
    flat = FlatRewards(told.append)
    for _ in range(UPDATES - 1):
        flat.look(update(0.0, 0.0))
    assert not told
    flat.look(update(0.0, 0.0))
    flat.look(update(0.0, 0.0))
    (text,) = told
    assert text.startswith(
        "in the last 10 updates every trajectory had the same reward, 0, so there was nothing"
    )


@pytest.mark.parametrize("other", [update(0.0, 1.0), update(1.0, 1.0), update()])
def test_one_update_that_is_different_begins_the_count_anew(other: list[Group]) -> None:
    told: list[str] = []
    flat = FlatRewards(told.append)
    for _ in range(3):
        for _ in range(UPDATES - 1):
            flat.look(update(0.0, 0.0))
        flat.look(other)
    assert not told


def test_held_out_rewards_are_without_what_hooks_add() -> None:
    class Penalty:
        @hookimpl
        def adjust_reward(self) -> float:
            return -1.0

    trajectory = Trajectory(Task("a"), outcome=Outcome(success=True))
    asyncio.run(Judge([], Hooks(plugins=[Penalty()], installed=False))(trajectory))
    assert trajectory.reward == -1
    asyncio.run(Judge([])(trajectory))
    assert trajectory.reward == 0
