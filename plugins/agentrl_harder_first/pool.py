"""The tasks that stand for choice: all of a small split, or a part of a huge one that is slowly renewed."""

from collections.abc import Mapping, Sequence
from typing import Any

from agentrl import Task
from agentrl.permutation import shuffled


class Pool:
    """Up to `size` tasks of a split, by their index.

    The tasks of the split come one after the other, in random order, and again from the start. Where there
    are more than `size`, a newcomer takes the place of the task that has been there longest.
    """

    def __init__(self, tasks: Sequence[Task], size: int, seed: int) -> None:
        """Take the split, which may be lazy."""
        self._tasks = tasks
        self._size = size
        self._seed = seed
        self._part = len(tasks) > size
        # Where newcomers and whole renewals have come to; two places, so that newcomers leave no task out.
        self._newest = self._renewed = size if self._part else 0
        first = map(self._index, range(size)) if self._part else range(len(tasks))
        self.members: dict[int, Task] = {index: tasks[index] for index in first}

    def newcomer(self) -> int:
        """Return the index of the task whose turn it is; it is in the pool from now on."""
        index = self._index(self._newest)
        self._newest += 1
        if index not in self.members:
            del self.members[next(iter(self.members))]
            self.members[index] = self._tasks[index]
        return index

    def renew(self) -> None:
        """Put the next tasks of the split in place of all, if there are others."""
        if self._part:
            places = range(self._renewed, self._renewed + self._size)
            self.members = {index: self._tasks[index] for index in map(self._index, places)}
            self._renewed += self._size

    def state(self) -> dict[str, Any]:
        """Return all that `restore` needs, JSON-safe."""
        members = list(self.members) if self._part else None
        return {"newest": self._newest, "renewed": self._renewed, "members": members}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self._newest, self._renewed = state["newest"], state["renewed"]
        if self._part:
            self.members = {index: self._tasks[index] for index in state["members"]}

    def _index(self, place: int) -> int:
        return shuffled(place, len(self._tasks), self._seed)
