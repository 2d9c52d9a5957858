"""A game of looking up and copying: read the items of a list aloud, from the highest number down to 1.

The list stands in no order. Each turn calls a number, and the right action is that number with its item.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from agentrl import Action, Env, Observation, Outcome, PluginConfig, Task, UsageError
from agentrl.seeds import derive

COLOURS = ("black", "blue", "green", "red", "white", "yellow")
THINGS = ("book", "bread", "chair", "coin", "cup", "key", "knife", "lamp", "plate", "ring", "sofa", "table")


def _items(split: str, colour: str) -> list[str]:
    """Return the items of a colour: every fifth is held out, so that no item is in both splits."""
    first = COLOURS.index(colour)
    held_out = {thing for number, thing in enumerate(THINGS) if (first + number) % 5 == 0}
    return [f"{colour} {thing}" for thing in THINGS if (thing in held_out) == (split == "dev")]


class Countdown(Env):
    """Read the list from the highest number down to 1."""

    class Config(PluginConfig):
        """Options.

        Attributes:
            length: how many items are on the list, each of another colour.
            train: how many training tasks there are.
            dev: how many held-out tasks there are.
        """

        length: int = Field(4, ge=1, le=len(COLOURS))
        train: int = Field(2000, ge=1)
        dev: int = Field(200, ge=1)

    config: Config
    # What `agentrl run --env countdown` uses unless its user says otherwise.
    suggests: ClassVar[Mapping[str, Any]] = {
        "agent": "chat",
        "rewards": {"success": 1.0},
        "simulator.max_turns": len(COLOURS),
        "simulator.max_new_tokens": 16,
    }

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the lists of a split, the same each time."""
        if split not in ("train", "dev"):
            raise UsageError(f"countdown has no split {split!r}; there are: train, dev")
        return [self._task(split, number) for number in range(getattr(self.config, split))]

    def _task(self, split: str, number: int) -> Task:
        chance = random.Random(derive("countdown", split, number))
        items = [chance.choice(_items(split, each)) for each in chance.sample(COLOURS, self.config.length)]
        return Task(f"{split}-{number}", split, {"items": items}, difficulty=self.config.length)

    async def reset(self, task: Task, seed: int) -> Observation:
        """Show the list, in an order that depends on the seed, and call the highest number."""
        self._items = task.data["items"]
        self._next = len(self._items)
        self._passed: list[str] = []
        self._failed: list[str] = []
        lines = [f" {number} {item}." for number, item in enumerate(self._items, 1)]
        random.Random(seed).shuffle(lines)
        return Observation(f"List:{''.join(lines)} Read {self._next}")

    async def step(self, action: Action) -> Observation:
        """Take note whether the number that was called was read aloud, and call the next."""
        right = action.text.split() == self._line(self._next).split()
        (self._passed if right else self._failed).append(f"item {self._next}")
        self._next -= 1
        if self._next == 0:
            return Observation("Done", done=True)
        return Observation(f"Read {self._next}")

    async def judge(self) -> Outcome:
        """Return success if every item was read, and which were."""
        missing = [f"item {number}" for number in range(self._next, 0, -1)]
        failed = (*self._failed, *missing)
        return Outcome(success=not failed, passed=tuple(self._passed), failed=failed)

    def demonstrate(self, task: Task) -> Sequence[str]:
        """Return the list, read as it should be."""
        items = task.data["items"]
        return [f" {number} {items[number - 1]}" for number in range(len(items), 0, -1)]

    def _line(self, number: int) -> str:
        return f"{number} {self._items[number - 1]}"
