"""Filling in forms: write a person's data as JSON that an old library accepts.

The library is pydantic 1, and agentrl needs pydantic 2. So the world, world.py, runs in a virtual environment
of its own; this module is imported beside agentrl, and never imports it.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from agentrl import Environment, PluginConfig, RemoteEnv, Task, UsageError
from agentrl.seeds import derive

NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hal", "Ida", "Jo", "Kai", "Lea")


class Forms(RemoteEnv):
    """Write a person's name and age as JSON."""

    class Config(PluginConfig):
        """Options.

        Attributes:
            attempts: how often a form may be handed in.
        """

        attempts: int = Field(2, ge=1)

    config: Config
    environment: ClassVar[Environment] = Environment(
        worker="world.py", requirements=("pydantic>=1.10.17,<2",), memory_mb=1024
    )
    suggests: ClassVar[Mapping[str, Any]] = {
        "agent": "chat",
        "rewards": {"success": 1.0},
        "simulator.max_turns": 2,
        "simulator.max_new_tokens": 32,
    }

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the tasks of "train" or "dev"; every fourth age is held out."""
        if split not in ("train", "dev"):
            raise UsageError(f"the env 'forms' has no split {split!r}; it has train and dev")
        ages = [age for age in range(18, 90) if (age % 4 == 0) == (split == "dev")]
        people = [(name, age) for name in NAMES for age in ages]
        random.Random(derive(0, split)).shuffle(people)
        return [Task(f"{name}-{age}", split, {"name": name, "age": age}) for name, age in people]

    def demonstrate(self, task: Task) -> Sequence[str]:
        """Return the form, filled in."""
        return [f'{{"name": "{task.data["name"]}", "age": {task.data["age"]}}}']
