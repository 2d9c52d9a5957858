"""A task is found by its id or its place, and few others are made on the way."""

from collections.abc import Callable, Sequence

import pytest

from agentrl import Env, LazyTasks, Task, UsageError
from agentrl.cli.task_choice import LOOKED_THROUGH, choose_task


def env_of(tasks: Sequence[Task]) -> Env:
    """Return an env that has these tasks, and does nothing else."""

    class Listed(Env):
        def tasks(self, split: str) -> Sequence[Task]:
            return tasks

    Listed.__abstractmethods__ = frozenset()
    return Listed()


class Counted:
    """Many tasks, and how many of them were made."""

    def __init__(self, name: Callable[[int], str]) -> None:
        self.made, self._name = 0, name
        self.env = env_of(LazyTasks(self._make, range(1_000_000)))

    def _make(self, place: int) -> Task:
        self.made += 1
        return Task(self._name(place), "train")

    def chosen(self, wanted: str) -> str:
        self.made = 0
        return choose_task(self.env, None, wanted, 0).id


@pytest.mark.parametrize(
    "name",
    [
        lambda place: f"train-{place}",
        lambda place: f"train-{'abc'[place % 3]}-2-{place // 3}",
        lambda place: f"page-2/{100 + place}",
        lambda place: str(place),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 8, 543_210, 999_999])
def test_a_task_whose_id_counts_is_found_wherever_it_is(name: Callable[[int], str], place: int) -> None:
    tasks = Counted(name)
    assert tasks.chosen(name(place)) == name(place)
    assert tasks.made < 20
    assert tasks.chosen(str(place)) == name(place)
    assert tasks.made < 20


def test_other_ids_are_looked_for_at_the_front() -> None:
    tasks = Counted(lambda place: f"{place:06}"[::-1] + "x")
    assert tasks.chosen("102000x") == "102000x"
    with pytest.raises(UsageError, match="the front of the split 'train' has no task '02145x'; did you mean"):
        tasks.chosen("02145x")
    assert tasks.made <= 2 * LOOKED_THROUGH


def test_a_number_is_an_id_first_where_ids_are_numbers() -> None:
    env = env_of([Task(name) for name in ("2", "0", "41")])
    assert [choose_task(env, None, wanted, 0).id for wanted in ("2", "0", "1", "41")] == ["2", "0", "0", "41"]
    with pytest.raises(UsageError, match="the split 'train' has no task '3'; there is '2', '0', '41'"):
        choose_task(env, None, "3", 0)


def test_ids_that_all_have_one_number_or_none_are_told_apart() -> None:
    assert choose_task(env_of([Task("a"), Task("b")]), None, "b", 0).id == "b"
    assert choose_task(env_of([Task("a1"), Task("b1")]), None, "b1", 0).id == "b1"
    assert choose_task(env_of([Task("a5"), Task("b3")]), None, "b3", 0).id == "b3"
