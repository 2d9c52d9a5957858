"""The curriculum for envs whose tasks already stand in the order in which they are to be learnt."""

from collections.abc import Mapping, Sequence
from typing import Any

from agentrl import Curriculum, Task, UsageError


class InOrder(Curriculum):
    """Go through the tasks in their order, over and over."""

    def start(self, tasks: Sequence[Task], seed: int) -> None:
        """Take the training tasks; the seed changes nothing.

        Raises:
            UsageError: there are none.
        """
        if not len(tasks):
            raise UsageError("the training split has no tasks; choose another env or add tasks to it")
        self._tasks = tasks
        self._position = 0

    def choose(self, n: int) -> list[Task]:
        """Return the next `n` tasks; after the last comes the first."""
        places = range(self._position, self._position + n)
        self._position += n
        return [self._tasks[place % len(self._tasks)] for place in places]

    def state(self) -> dict[str, Any]:
        """Return how many tasks were chosen."""
        return {"position": self._position}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on after as many tasks."""
        self._position = int(state["position"])
