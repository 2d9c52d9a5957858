"""A game of remembering: who is where is said once, and asked person by person.

Replace it by your own world: the five methods of the env are what agentrl asks of one.
"""

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from agentrl import Action, Env, Expert, Observation, Outcome, PluginConfig, Task, UsageError
from pydantic import Field

__all__ = ["MyEnv"]

PEOPLE = ("Ada", "Bruno", "Clara", "Emma", "Felix", "Hugo")
ROOMS = ("attic", "bathroom", "bedroom", "cellar", "garage", "garden", "hall", "kitchen", "library", "pantry")


def rooms_of(person: str, split: str) -> list[str]:
    """Return where a person may be: every fifth pair is held out, so that no pair is in both splits."""
    first = PEOPLE.index(person)
    held_out = {room for number, room in enumerate(ROOMS) if (first + number) % 5 == 0}
    return [room for room in ROOMS if (room in held_out) == (split == "dev")]


class MyEnv(Env):
    """Remember who is where, and answer when asked."""

    class Config(PluginConfig):
        """Options: `--set env.people=5` sets one, and a misspelt one is refused."""

        people: int = Field(default=3, ge=1, le=len(PEOPLE), description="how many people there are")
        train: int = Field(default=1000, ge=1, description="how many training tasks there are")
        dev: int = Field(default=200, ge=1, description="how many held-out tasks there are")

    config: Config
    # What `agentrl run` uses with this env unless its user says otherwise.
    suggests: ClassVar[Mapping[str, Any]] = {
        "agent": "chat",
        "rewards": {"success": 1.0},
        "simulator.max_turns": len(PEOPLE),
        "simulator.max_new_tokens": 16,
    }
    # The built-in model has to be shown the game first, and learns it soon; a larger one may do without.
    suggests_with: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny": {"warmup": 6, "warmup_learning_rate": 2e-3, "steps": 40}
    }

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the tasks of a split, the same each time. Their data is all that `reset` gets to know."""
        counts = {"train": self.config.train, "dev": self.config.dev}
        if split not in counts:
            raise UsageError(f"there is no split {split!r}; there are: {', '.join(counts)}")
        return [self._task(split, number) for number in range(counts[split])]

    def _task(self, split: str, number: int) -> Task:
        chance = random.Random(f"{split} {number}")
        people = chance.sample(PEOPLE, self.config.people)
        rooms = {person: chance.choice(rooms_of(person, split)) for person in people}
        return Task(f"{split}-{number}", split, {"rooms": rooms}, difficulty=len(rooms))

    async def reset(self, task: Task, seed: int) -> Observation:
        """Begin an episode: set everything anew, and draw whatever is random from the seed."""
        self.rooms: Mapping[str, str] = task.data["rooms"]
        self.order = random.Random(seed).sample(list(self.rooms), len(self.rooms))
        self.passed: list[str] = []
        self.failed: list[str] = []
        told = ", ".join(self._answer(person) for person in self.rooms)
        return Observation(f"Who is where: {told}. {self._question()}")

    async def step(self, action: Action) -> Observation:
        """Take an answer, whatever it says, and ask for the next person."""
        person = self.order[self._answered]
        right = action.text.split() == self._answer(person).split()
        (self.passed if right else self.failed).append(person)
        if self._answered == len(self.order):
            return Observation("That was all.", done=True)
        return Observation(f"{'Yes.' if right else 'No.'} {self._question()}")

    async def judge(self) -> Outcome:
        """Return the verdict, which must also be right when an episode is cut off after any turn."""
        failed = (*self.failed, *self.order[self._answered :])
        return Outcome(success=not failed, passed=tuple(self.passed), failed=failed)

    def demonstrate(self, task: Task) -> Expert:
        """Return an expert, for `--warmup`, and as proof that the task can be solved.

        It has to look who is asked for: the order depends on the seed. Where the right actions are known
        beforehand, return a list of texts instead.
        """

        def expert(observation: Observation) -> str:
            asked = re.search(r"Where is (\w+)\?", observation.text)
            return f" {asked[1]} {task.data['rooms'][asked[1]]}" if asked else ""

        return expert

    @property
    def _answered(self) -> int:
        return len(self.passed) + len(self.failed)

    def _answer(self, person: str) -> str:
        return f"{person} {self.rooms[person]}"

    def _question(self) -> str:
        return f"Where is {self.order[self._answered]}?"
