"""The houses: every task has one of its own, made of a seed alone.

A house is a tree of rooms that begins in the hall. Rooms have containers, which are closed, and some of these
hold a thing. Which split a house belongs to is decided by a stable hash of the house itself, so no house
of one split exists in another, however small houses are.
"""

import hashlib
import json
import random
from dataclasses import dataclass
from typing import Any

from agentrl.types import Task

HALL = "hall"
FURNITURE: dict[str, tuple[str, ...]] = {
    "attic": ("basket", "box", "chest", "shelf"),
    "bathroom": ("basket", "cabinet", "drawer", "shelf"),
    "bedroom": ("box", "chest", "desk", "drawer"),
    "cellar": ("basket", "box", "chest", "cupboard"),
    "garage": ("box", "cabinet", "chest", "shelf"),
    "garden": ("basket", "box", "chest", "cabinet"),
    "kitchen": ("cupboard", "drawer", "fridge", "oven"),
    "library": ("cabinet", "chest", "desk", "shelf"),
    "office": ("box", "cabinet", "desk", "drawer"),
    "pantry": ("basket", "cupboard", "fridge", "shelf"),
}
THINGS = (
    "apple", "book", "bottle", "bread", "candle", "clock", "coin", "cup", "egg", "hammer", "key", "knife",
    "lamp", "letter", "pen", "phone", "plate", "ring", "rope", "spoon", "towel",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plan:
    """What houses look like.

    Attributes:
        seed: of all houses.
        rooms: in a house, the hall included.
        containers: how many a room may have; the hall has none.
        objects: how many things may be asked for.
        decoys: things that nobody asks for.
    """

    seed: int
    rooms: int
    containers: tuple[int, ...]
    objects: tuple[int, ...]
    decoys: int


def draw(chance: random.Random, plan: Plan) -> dict[str, Any]:
    """Return a random house and what is asked for, JSON-safe.

    A room's exits begin with the one that leads to the hall.
    """
    names = [HALL, *chance.sample(sorted(FURNITURE), plan.rooms - 1)]
    exits: dict[str, list[str]] = {HALL: []}
    for name in names[1:]:
        before = chance.choice(list(exits))
        exits[before].append(name)
        exits[name] = [before]
    furniture = {name: chance.sample(FURNITURE[name], chance.choice(plan.containers)) for name in names[1:]}
    places = [(room, container) for room in furniture for container in furniture[room]]
    wanted = chance.choice(plan.objects)
    things = chance.sample(THINGS, min(wanted + plan.decoys, len(places)))
    hidden = dict(zip(chance.sample(places, len(things)), things, strict=True))
    rooms = [
        {
            "name": name,
            "exits": exits[name],
            "containers": [[each, hidden.get((name, each))] for each in furniture.get(name, ())],
        }
        for name in names
    ]
    return {"rooms": rooms, "goal": things[:wanted]}


def split_of(house: dict[str, Any]) -> str:
    """Return the split to which a house belongs: 80% train, 10% dev, 10% test."""
    bucket = hashlib.sha256(json.dumps(house, sort_keys=True).encode()).digest()[0] % 10
    return {8: "dev", 9: "test"}.get(bucket, "train")


def pose(split: str, index: int, plan: Plan) -> Task:
    """Return the task number `index` of a split."""
    chance = random.Random(f"{split}/{plan.seed}/{index}")
    house = draw(chance, plan)
    while split_of(house) != split:
        house = draw(chance, plan)
    return Task(f"{split}-{index}", split, house, difficulty=len(house["goal"]))
