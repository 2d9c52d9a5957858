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
        self._seed = seed
        self.renewed = len(tasks) > size
        self._next = size if self.renewed else 0
        first = (self._index(place) for place in range(size)) if self.renewed else range(len(tasks))
        self.members: dict[int, Task] = {index: tasks[index] for index in first}

    def newcomer(self) -> int:
        """Return the index of the next task of the split, which is in the pool from now on."""
        index = self._index(self._next)
        self._next += 1
        if index not in self.members:
            del self.members[next(iter(self.members))]
            self.members[index] = self._tasks[index]
        return index

    def renew(self, index: int) -> None:
        """Let the next task that is not in the pool take the place of `index`, if there are others."""
        if self.renewed and self.members.pop(index, None):
            new = self._unknown()
            self.members[new] = self._tasks[new]

    def _unknown(self) -> int:
        while True:
            index = self._index(self._next)
            self._next += 1
            if index not in self.members:
                return index

    def state(self) -> dict[str, Any]:
        """Return all that `restore` needs, JSON-safe."""
        return {"next": self._next, "members": list(self.members) if self.renewed else None}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self._next = state["next"]
        if self.renewed:
            self.members = {index: self._tasks[index] for index in state["members"]}

    def _index(self, place: int) -> int:
        return shuffled(place, len(self._tasks), self._seed)
