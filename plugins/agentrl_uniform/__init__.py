"""The curriculum that prefers nothing: every task once, in random order, then all over again.

The order of an epoch is a keyed permutation that is computed place by place (a Feistel network, with cycle
walking down to the number of tasks), so a split of a billion generated tasks costs no memory, and the state
is a single number.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from agentrl import Curriculum, Task, UsageError

_ROUNDS = 4


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
        return [self._tasks[self._index(place)] for place in places]

    def state(self) -> dict[str, Any]:
        """Return how many tasks were chosen."""
        return {"position": self._position}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on after as many tasks."""
        self._position = int(state["position"])

    def _index(self, place: int) -> int:
        epoch, step = divmod(place, len(self._tasks))
        return permute(step, len(self._tasks), f"{self._seed}/{epoch}")


def permute(index: int, size: int, key: str) -> int:
    """Return where `index` goes in the permutation of range(size) that `key` names."""
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    while True:
        index = _encipher(index, half, key)
        if index < size:
            return index


def _encipher(value: int, half: int, key: str) -> int:
    """Permute the numbers of 2 * half bits: a Feistel network whose rounds are hashes."""
    left, right = value >> half, value & ((1 << half) - 1)
    for number in range(_ROUNDS):
        text = f"{key}/{number}/{right}".encode()
        digest = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
        left, right = right, left ^ (digest & ((1 << half) - 1))
    return left << half | right
