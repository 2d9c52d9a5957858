import pytest

from agentrl import Task, UsageError
from agentrl_in_order import InOrder

TASKS = [Task(str(number)) for number in range(3)]


def test_tasks_come_in_their_order_over_and_over_also_when_restored() -> None:
    curriculum = InOrder()
    curriculum.start(TASKS, seed=9)
    assert [task.id for task in curriculum.choose(4)] == ["0", "1", "2", "0"]
    other = InOrder()
    other.start(TASKS, seed=1)
    other.restore(curriculum.state())
    assert [task.id for task in other.choose(2)] == ["1", "2"]


def test_a_split_without_tasks_is_refused() -> None:
    with pytest.raises(UsageError, match="the training split has no tasks"):
        InOrder().start([], seed=0)
