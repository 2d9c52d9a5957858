"""A sequence of tasks that are each made when they are asked for, so that it may be as long as it likes."""

from collections.abc import Callable, Iterator, Sequence
from typing import overload

from agentrl.types import Task


class LazyTasks(Sequence[Task]):
    """Tasks by number; a slice is lazy, too."""

    def __init__(self, make: Callable[[int], Task], numbers: range) -> None:
        """Take what makes the task of a number, and the numbers; nothing is made yet."""
        self._make, self._numbers = make, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> "LazyTasks": ...
    def __getitem__(self, index: int | slice) -> "Task | LazyTasks":
        if isinstance(index, slice):
            return LazyTasks(self._make, self._numbers[index])
        return self._make(self._numbers[index])

    def __iter__(self) -> Iterator[Task]:
        return (self[position] for position in range(len(self)))
