"""The curriculum that prefers nothing: every task once, in random order, then all over again.

The order is computed place by place (see `agentrl.permutation`), so the state is a single number.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from agentrl import Curriculum, Task, UsageError
from agentrl.permutation import shuffled


class Uniform(Curriculum):
    """Go through the tasks in an order that seed and epoch decide."""

    def start(self, tasks: Sequence[Task], seed: int) -> None:
        """Take the training tasks.

        Raises:
            UsageError: there are none.
        """
        if not len(tasks):
            raise UsageError("the training split has no tasks; choose another env or add tasks to it")
        self._tasks = tasks
        self._seed = seed
        self._position = 0

    def choose(self, n: int) -> list[Task]:
        """Return the next `n` tasks."""
        places = range(self._position, self._position + n)
        self._position += n
        return [self._tasks[self.index(place)] for place in places]

    def index(self, place: int) -> int:
        """Return which task is chosen at `place`, from 0 on."""
        return shuffled(place, len(self._tasks), self._seed)

    def state(self) -> dict[str, Any]:
        """Return how many tasks were chosen."""
        return {"position": self._position}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on after as many tasks."""
        self._position = int(state["position"])
