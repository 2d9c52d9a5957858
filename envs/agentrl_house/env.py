"""The episode: walk, open, take, put. See the package for the task."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from agentrl.errors import UsageError
from agentrl.interfaces import Env, PluginConfig
from agentrl.lazy_tasks import LazyTasks
from agentrl.types import Action, Need, Observation, Outcome, Task

from .building import FURNITURE, HALL, Plan, pose
from .expert import search
from .world import World, understand

LENGTHS = {"train": 1_000_000, "dev": 10_000, "test": 10_000}
HELP = "Use go, open, take or put."
SYSTEM = """\
You are in a house and have to find things and put them in the hall, in the order in which the goal names \
them. Reply with one action and nothing else: go ROOM, open CONTAINER, take THING or put THING. Things are \
hidden in closed containers. You have not been in dark rooms yet. You can carry many things."""


class House(Env):
    """Find things in a house and bring them to the hall, in order."""

    class Config(PluginConfig):
        """Options."""

        seed: int = Field(default=0, description="of the generated houses")
        rooms: int = Field(default=4, ge=2, le=len(FURNITURE) + 1, description="in a house, with the hall")
        containers: tuple[int, ...] = Field(
            default=(1, 2), min_length=1, description="in a room, 1 to 4; the hall has none"
        )
        objects: tuple[int, ...] = Field(default=(2,), min_length=1, description="to be brought, 1 to 6")
        decoys: int = Field(default=1, ge=0, le=10, description="further things, as far as there is room")
        max_invalid: int = Field(
            default=2, ge=1, description="actions in a row that change nothing before the episode ends"
        )

        @model_validator(mode="after")
        def _consistent(self) -> Self:
            if not all(1 <= count <= 4 for count in self.containers):
                raise ValueError("containers must be from 1 to 4")
            if not all(1 <= count <= 6 for count in self.objects):
                raise ValueError("objects must be from 1 to 6")
            places = (self.rooms - 1) * min(self.containers)
            if max(self.objects) > places:
                raise ValueError(
                    f"{max(self.objects)} objects cannot be hidden in {places} containers; "
                    "add rooms or containers"
                )
            return self

    config: Config
    provides: ClassVar[frozenset[Need]] = frozenset({"step_keys"})
    suggests: ClassVar[Mapping[str, Any]] = {
        "agent": "chat",
        "agent.system": SYSTEM,
        "rewards": {"success": 1.0},
        "simulator.max_turns": 20,
        "simulator.max_new_tokens": 64,
        "tasks_per_step": 8,
    }
    suggests_with: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {"warmup": 90, "warmup_learning_rate": 2e-3},
    }

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the houses of `train`, `dev` or `test`."""
        if split not in LENGTHS:
            raise UsageError(f"no split {split!r}: there is {', '.join(LENGTHS)}")
        config = self.config
        plan = Plan(config.seed, config.rooms, config.containers, config.objects, config.decoys)
        return LazyTasks(partial(pose, split, plan=plan), range(LENGTHS[split]))

    async def reset(self, task: Task, seed: int) -> Observation:
        """Begin in the hall. `seed` changes nothing: there is no chance in a house."""
        self._world = World(task.data)
        self._turns = self._invalid = self._invalid_in_a_row = 0
        self._path = [HALL]
        return self._observe(self._world.describe())

    async def step(self, action: Action) -> Observation:
        """Act in the house; what changes nothing is explained."""
        self._turns += 1
        understood = understand(action.text)
        if understood is None or not self._world.act(*understood):
            return self._explain(understood)
        self._invalid_in_a_row = 0
        if understood[0] == "go":
            self._path.append(self._world.room)
        if not self._world.wanted:
            return self._observe("Done.", done=True)
        return self._observe(self._world.describe())

    def _explain(self, understood: tuple[str, str] | None) -> Observation:
        """Say what can be done; who does not listen has lost the thread, and the episode ends."""
        self._invalid += 1
        self._invalid_in_a_row += 1
        if self._invalid_in_a_row >= self.config.max_invalid:
            return self._observe("Nothing done.", done=True)
        return self._observe(HELP if understood is None else "You can not do that here.")

    def _observe(self, text: str, done: bool = False) -> Observation:
        """Show `text`. What changed nothing may, when repeated, end the episode, so the state counts it."""
        state = [*self._world.state, self._invalid_in_a_row, done]
        key = hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]
        return Observation(text, done, key)

    async def judge(self) -> Outcome:
        """Look whether everything that was asked for lies in the hall, in order."""
        delivered = self._world.delivered
        metrics = {
            "actions": float(self._turns),
            "revisits": float(len(self._path) - len(set(self._path))),
            "invalid_actions": float(self._invalid),
            "delivered": len(delivered) / len(self._world.goal),
        }
        return Outcome(
            not self._world.wanted,
            passed=tuple(delivered),
            failed=tuple(self._world.wanted),
            metrics=metrics,
        )

    def demonstrate(self, task: Task) -> Sequence[str]:
        """Return the actions of an expert that has to search as well, see `expert`."""
        return list(search(task.data))
