import json
from collections import Counter
from collections.abc import Sequence
from itertools import product
from math import ceil
from random import Random
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl import Curriculum, Group, Outcome, Task, Trajectory, UsageError
from agentrl.testing import check_curriculum
from agentrl_harder_first import HarderFirst
from agentrl_harder_first.beliefs import Beliefs, count
from agentrl_harder_first.coverage import coverage, expected_coverage, expected_variance, share_out

RATES = st.floats(0, 1)
PARAMETERS = st.floats(0.05, 200)
BELIEFS = st.tuples(PARAMETERS, PARAMETERS)


def tasks(number: int, levels: int = 3) -> list[Task]:
    return [
        Task(str(n), difficulty=n % levels, scenario=f"s{n % 2}", labels={"skill": "ab"[n % 2]})
        for n in range(number)
    ]


def started(split: Sequence[Task], seed: int = 0, **options: Any) -> HarderFirst:
    curriculum = HarderFirst(HarderFirst.Config(**options))
    curriculum.start(split, seed)
    return curriculum


def group(task: Task, successes: int, failures: int, broken: int = 0) -> Group:
    played = [Trajectory(task, outcome=Outcome(success=True)) for _ in range(successes)]
    played += [Trajectory(task, outcome=Outcome(success=False)) for _ in range(failures)]
    return Group(task, played + [Trajectory(task, stop="error", error="crash") for _ in range(broken)])


def known(curriculum: Curriculum, split: Sequence[Task], rates: Sequence[float], size: int = 40) -> None:
    """Tell the curriculum how often each task is solved."""
    curriculum.sizes(split, 8)
    curriculum.learn(
        [group(task, round(p * size), size - round(p * size)) for task, p in zip(split, rates, strict=True)]
    )


# Coverage


def test_coverage_has_the_published_numbers() -> None:
    assert coverage(0.05, 8) == pytest.approx(0.3366, abs=5e-5)
    assert coverage(0.05, 32) == pytest.approx(0.8063, abs=5e-5)
    assert coverage(0.5, 2) == 0.5
    assert coverage(0.3, 1) == 0


@given(st.sampled_from([0.1, 0.35, 0.5, 0.9]), st.integers(1, 6))
def test_coverage_is_the_chance_that_outcomes_differ(p: float, size: int) -> None:
    chance = 0.0
    for outcomes in product((True, False), repeat=size):
        if len(set(outcomes)) == 2:
            chance += p ** sum(outcomes) * (1 - p) ** (size - sum(outcomes))
    assert coverage(p, size) == pytest.approx(chance, abs=1e-12)


@given(RATES, st.integers(1, 64))
def test_coverage_is_a_chance_symmetric_and_rises_with_the_size(p: float, size: int) -> None:
    assert 0 <= coverage(p, size) <= coverage(p, size + 1) + 1e-12 <= 1 + 1e-12
    assert coverage(p, size) == pytest.approx(coverage(1 - p, size), abs=1e-12)


@given(BELIEFS, st.integers(1, 64))
def test_so_is_its_expectation(belief: tuple[float, float], size: int) -> None:
    now, more = expected_coverage(belief, size), expected_coverage(belief, size + 1)
    assert 0 <= now <= more + 1e-12 <= 1 + 1e-12
    assert now == pytest.approx(expected_coverage((belief[1], belief[0]), size), abs=1e-12)


@pytest.mark.parametrize(("a", "b", "size"), [(1, 1, 8), (2.5, 7, 4), (0.5, 3, 16)])
def test_expectations_agree_with_drawing_success_rates(a: float, b: float, size: int) -> None:
    random = Random(1)
    drawn = [random.betavariate(a, b) for _ in range(40_000)]
    assert expected_coverage((a, b), size) == pytest.approx(fmean(coverage(p, size) for p in drawn), abs=0.01)
    assert expected_variance((a, b)) == pytest.approx(fmean(4 * p * (1 - p) for p in drawn), abs=0.01)
    assert expected_coverage((1, 1), 8) == pytest.approx(1 - 2 / 9)


# Sharing out


@given(st.lists(BELIEFS, min_size=1, max_size=12), st.integers(1, 16), st.integers(1, 4), st.integers(0, 20))
def test_sizes_stay_within_bounds_and_spend_the_budget_if_they_may(
    beliefs: list[tuple[float, float]], group_size: int, least: int, room: int
) -> None:
    least = min(least, group_size)
    most, budget = least + room, len(beliefs) * group_size
    sizes = share_out(beliefs, budget, least, most)
    assert all(least <= size <= most for size in sizes)
    assert sum(sizes) == min(budget, most * len(beliefs))


def test_sharing_out_is_as_good_as_the_best_of_all_ways() -> None:
    beliefs = [(1.0, 12.0), (3.0, 4.0), (9.0, 2.0)]

    def worth(sizes: Sequence[int]) -> float:
        return sum(
            b / (a + b) * expected_coverage((a, b), n) for (a, b), n in zip(beliefs, sizes, strict=True)
        )

    ways = [sizes for sizes in product(range(2, 11), repeat=3) if sum(sizes) == 15]
    assert worth(share_out(beliefs, 15, 2, 10)) == pytest.approx(max(map(worth, ways)))


def test_harder_tasks_get_larger_groups_at_the_same_number_in_all() -> None:
    split = tasks(4)
    curriculum = started(split, adapt_group_size=True)
    known(curriculum, split, [0.05, 0.3, 0.5, 0.95])
    sizes = curriculum.sizes(split, 8)
    assert sum(sizes) == 32
    assert sizes[0] > sizes[1] > sizes[2]
    assert sizes[0] > sizes[3]
    assert min(sizes) >= 2
    assert started(split).sizes(split, 8) == [8] * 4
    assert curriculum.sizes(split, 1) == [1] * 4
    bounded = started(split, adapt_group_size=True, min_group_size=6, max_group_size=9)
    known(bounded, split, [0.05, 0.3, 0.5, 0.95])
    assert set(bounded.sizes(split, 8)) <= {6, 7, 8, 9}


# Beliefs


def test_evidence_fades_by_half_and_is_forgotten() -> None:
    beliefs = Beliefs((1.0, 1.0), half_life=2)
    beliefs.learn([("a", 4, 8)])
    assert beliefs.of("a") == (5, 9)
    beliefs.learn([])
    beliefs.learn([])
    assert beliefs.of("a") == (3, 5)
    beliefs.learn([("a", 0, 0)] * 3)
    assert beliefs.of("a") == pytest.approx((1 + 2**0.5, 1 + 2 * 2**0.5))
    for _ in range(40):
        beliefs.learn([])
    assert beliefs.of("a") == (1, 1)
    assert beliefs.state()["seen"] == {}


def test_what_failed_is_neither_success_nor_failure() -> None:
    assert count(group(Task("a"), 2, 3, broken=4)) == (2, 3)
    assert count(Group(Task("a"), [])) == (0, 0)


# Choosing


@pytest.mark.parametrize("score", ["coverage", "variance"])
def test_tasks_that_teach_are_preferred_and_of_these_the_harder_ones(score: str) -> None:
    split = tasks(5)
    curriculum = started(split, score=score, floor=0, half_life=1e9)
    known(curriculum, split, [0.0, 0.1, 0.5, 0.9, 1.0])
    chosen = Counter(task.id for _ in range(3000) for task in curriculum.choose(1))
    never, hard, even, easy, always = (chosen[str(n)] for n in range(5))
    assert even > 5 * never
    assert even > 5 * always
    assert hard > 3 * easy
    assert hard > never
    assert easy > always


def test_no_task_comes_twice_in_a_step_while_there_are_others() -> None:
    curriculum = started(tasks(10), floor=0.3)
    for number in (10, 4, 7):
        assert len({task.id for task in curriculum.choose(number)}) == number
    assert Counter(task.id for task in curriculum.choose(25)).most_common(1)[0][1] <= 4


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 8), st.sampled_from([0.1, 0.5, 1.0]), st.booleans())
def test_no_task_starves(number: int, step: int, floor: float, small_pool: bool) -> None:
    split = tasks(number)
    curriculum = started(split, floor=floor, pool=max(1, number // 2) if small_pool else 1024, half_life=1e9)
    known(curriculum, split, [0.0] * (number - 1) + [0.5], size=40)
    for _ in range(2):  # from wherever it stands
        bound = ceil((2 * number + 1) / floor / step) + 1
        seen = {task.id for _ in range(bound) for task in curriculum.choose(step)}
        assert len(seen) == number


def test_without_a_floor_hopeless_tasks_may_never_come() -> None:
    split = tasks(20)
    curriculum = started(split, floor=0, sharpness=30, half_life=1e9)
    known(curriculum, split, [0.0] * 10 + [0.5] * 10)
    assert all(int(task.id) >= 10 for _ in range(50) for task in curriculum.choose(4))


@pytest.mark.parametrize("by", ["difficulty", "scenario", "labels"])
def test_what_is_learnt_of_a_kind_holds_for_tasks_that_never_came_before(by: str) -> None:
    split = tasks(100_000, levels=2)
    curriculum = started(split, by=by, pool=64, floor=0.0, sharpness=8)
    seen: list[str] = []
    for _ in range(30):
        chosen = curriculum.choose(8)
        curriculum.sizes(chosen, 8)
        seen += [task.id for task in chosen]
        curriculum.learn([group(task, 4, 4) if task.difficulty else group(task, 8, 0) for task in chosen])
    assert len(set(seen)) == len(seen)
    assert fmean(int(task) % 2 for task in seen[-80:]) > 0.9


@pytest.mark.parametrize("by", ["difficulty", "scenario", "labels"])
def test_a_kind_that_tasks_do_not_have_is_refused(by: str) -> None:
    with pytest.raises(UsageError, match=rf"the env's tasks have no {by}, so curriculum.by={by}"):
        started([Task("a"), Task("b")], by=by)


def test_no_training_tasks_are_refused() -> None:
    with pytest.raises(UsageError, match="the training split has no tasks"):
        started([])
    with pytest.raises(ValueError, match="must not be smaller"):
        HarderFirst.Config(min_group_size=4, max_group_size=3)


def course(curriculum: HarderFirst, steps: int, seed: int) -> list[Any]:
    random, log = Random(seed), []
    for _ in range(steps):
        chosen = curriculum.choose(3)
        sizes = curriculum.sizes(chosen, 4)
        log.append(([task.id for task in chosen], sizes))
        wins = [random.randint(0, size) for size in sizes]
        curriculum.learn(
            [group(task, won, size - won) for task, won, size in zip(chosen, wins, sizes, strict=True)]
        )
    return log


@given(
    st.integers(1, 30),
    st.integers(1, 12),
    st.integers(0, 9),
    st.sampled_from(["task", "difficulty"]),
    st.booleans(),
)
def test_a_restored_curriculum_goes_on_identically(
    number: int, pool: int, steps: int, by: str, adapt: bool
) -> None:
    options = {"pool": pool, "by": by, "floor": 0.3, "adapt_group_size": adapt, "half_life": 3.3}
    curriculum = started(tasks(number), seed=4, **options)
    course(curriculum, steps, seed=1)
    state = json.loads(json.dumps(curriculum.state(), allow_nan=False))
    restored = started(tasks(number), seed=4, **options)
    restored.restore(state)
    assert course(restored, 6, seed=2) == course(curriculum, 6, seed=2)


@pytest.mark.parametrize(
    "options",
    [{"adapt_group_size": True}, {"by": "difficulty"}, {"pool": 2, "floor": 1.0}, {"score": "variance"}],
)
def test_it_keeps_the_rules_with_every_option(options: dict[str, Any]) -> None:
    check_curriculum(lambda: HarderFirst(HarderFirst.Config(**options)))
