"""The tasks: every combination of gym, level and profile in turn, each made when it is asked for.

Which split a problem belongs to is decided by a stable hash of the problem itself, so no problem of one
split exists in another, however few a gym has. The profiles of one number share their problem, so that
they compare.
"""

import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from agentrl.errors import PluginError
from agentrl.types import Task

from .gym import Problem, load_gym

LENGTHS = {"train": 1_000_000, "dev": 10_000, "test": 10_000}
# So often a gym may draw a problem of other splits before it counts as having too few.
DRAWS = 1000


@dataclass(frozen=True, slots=True)
class Plan:
    """Which tasks there are, beside their split."""

    seed: int
    gyms: tuple[str, ...]
    levels: tuple[int, ...]
    profiles: tuple[str, ...]

    @property
    def kinds(self) -> list[tuple[int, str, str]]:
        """Return the combinations of level, gym and profile."""
        return list(product(self.levels, self.gyms, self.profiles))


def task_at(split: str, index: int, plan: Plan) -> Task:
    """Return the task number `index` of a split."""
    number, kind = divmod(index, len(plan.kinds))
    level, gym, profile = plan.kinds[kind]
    data = {"gym": gym, "level": level, "profile": profile, "seed": f"{split}/{plan.seed}/{number}"}
    name = f"{split}-{gym}-{level}-{profile}-{number}"
    return Task(name, split, data, difficulty=level, labels={"skill": gym, "profile": profile})


def problem_of(data: Mapping[str, Any]) -> Problem:
    """Return the problem that a task poses.

    Raises:
        PluginError: the gym has too few problems for so many splits.
    """
    gym, level, seed = load_gym(data["gym"]), data["level"], data["seed"]
    split = seed.partition("/")[0]
    chance = random.Random(f"{gym.name}/{level}/{seed}")
    for _ in range(DRAWS):
        problem = gym.pose(chance, level)
        if split_of(problem) == split:
            return problem
    raise PluginError(
        f"gym {gym.name!r} has no problem of level {level} for {split!r}; let it draw from more"
    )


def split_of(problem: Problem) -> str:
    """Return the split to which a problem belongs: 80% train, 10% dev, 10% test."""
    text = json.dumps([problem.goal, dict(problem.shown), dict(problem.facts)], sort_keys=True)
    bucket = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) % 10
    return {8: "dev", 9: "test"}.get(bucket, "train")
