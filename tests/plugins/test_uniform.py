from collections.abc import Sequence
from typing import Any, overload

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl import Task, UsageError
from agentrl.discovery import list_plugins
from agentrl.permutation import permute
from agentrl_uniform import Uniform


class Lazy(Sequence[Task]):
    """So many tasks that listing them would never end."""

    def __len__(self) -> int:
        return 10**15

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Task]: ...
    def __getitem__(self, index: Any) -> Any:
        assert isinstance(index, int)
        assert 0 <= index < len(self)
        return Task(str(index))


def started(count: int, seed: int = 0) -> Uniform:
    curriculum = Uniform()
    curriculum.start([Task(str(index)) for index in range(count)], seed)
    return curriculum


def ids(tasks: list[Task]) -> list[int]:
    return [int(task.id) for task in tasks]


@given(st.integers(1, 300), st.text(max_size=5))
def test_a_permutation_hits_every_place_once(size: int, key: str) -> None:
    assert sorted(permute(index, size, key) for index in range(size)) == list(range(size))


@given(st.integers(1, 40), st.integers(0, 5), st.lists(st.integers(0, 30), max_size=8))
def test_every_epoch_plays_every_task_once(count: int, seed: int, sizes: list[int]) -> None:
    curriculum = started(count, seed)
    chosen = [index for size in sizes for index in ids(curriculum.choose(size))]
    assert len(chosen) == sum(sizes)
    for start in range(0, len(chosen) - count + 1, count):
        assert sorted(chosen[start : start + count]) == list(range(count))


def test_the_order_depends_on_seed_and_epoch_and_nothing_else() -> None:
    first, again = started(50), started(50)
    assert ids(first.choose(50)) == [index for _ in range(5) for index in ids(again.choose(10))]
    assert ids(first.choose(50)) != ids(started(50).choose(50))
    assert ids(started(50, seed=1).choose(50)) != ids(started(50, seed=2).choose(50))
    assert ids(started(50).choose(50)) != list(range(50))


def test_a_restored_curriculum_goes_on_exactly() -> None:
    curriculum = started(7)
    curriculum.choose(10)
    state = curriculum.state()
    assert state == {"position": 10}
    other = started(7)
    other.restore(state)
    assert other.choose(20) == curriculum.choose(20)


def test_a_huge_split_costs_nothing() -> None:
    curriculum = Uniform()
    curriculum.start(Lazy(), seed=3)
    chosen = ids(curriculum.choose(2000))
    assert len(set(chosen)) == 2000
    assert 0.4e15 < sum(chosen) / 2000 < 0.6e15


def test_tasks_are_spread_evenly_over_the_places() -> None:
    firsts = [ids(started(4, seed).choose(1))[0] for seed in range(400)]
    assert all(70 < firsts.count(index) < 130 for index in range(4))


def test_a_split_without_tasks_is_refused() -> None:
    with pytest.raises(UsageError, match=r"the training split has no tasks"):
        started(0)


def test_it_is_found_by_its_entry_point() -> None:
    assert "uniform" in {info.name for info in list_plugins("curriculum")}
