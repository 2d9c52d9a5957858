"""The built-in encyclopedia: a small generated world for every task, so that nothing can be memorised.

A world has some forty people, and each relation of a person leads to a person of the same world. There
is one passage a person; questions follow one to four relations. A world is made of its seed alone, and
worlds of different splits share no person (see `names`).
"""

import random
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from agentrl.types import Task

from .corpus import Passage
from .names import RELATIONS, people


class World:
    """A generated world: who is whose mentor, rival and so on."""

    def __init__(self, split: str, seed: str, size: int) -> None:
        """Make the world of `size` people that `split` and `seed` stand for."""
        self.random = random.Random(f"{split}/{seed}/{size}")
        self.people = self.random.sample(people(split), size)
        self.facts = {person: self._relations(person) for person in self.people}

    def _relations(self, person: str) -> dict[str, str]:
        others = [other for other in self.people if other != person]
        relations = self.random.sample(RELATIONS, len(RELATIONS))
        return {relation: self.random.choice(others) for relation in relations}

    def passages(self) -> list[Passage]:
        """Return one passage a person, its facts in random order."""
        return [
            Passage(
                person, person, " ".join(f"{person} {relation} {other}." for relation, other in facts.items())
            )
            for person, facts in self.facts.items()
        ]

    def walk(self, hops: int) -> tuple[list[str], list[str]]:
        """Return people and the relations that lead from one to the next, without going in circles."""
        path: list[str] = [self.random.choice(self.people)]
        relations: list[str] = []
        while len(relations) < hops:
            relation, other = self.random.choice(list(self.facts[path[-1]].items()))
            if other in path:
                if set(self.facts[path[-1]].values()) <= set(path):
                    path, relations = [self.random.choice(self.people)], []
                continue
            path.append(other)
            relations.append(relation)
        return path, relations


@lru_cache(maxsize=64)
def passages_of(split: str, seed: str, size: int) -> tuple[Passage, ...]:
    """Return the passages of a world."""
    return tuple(World(split, seed, size).passages())


def pose(split: str, index: int, seed: int, hops: Sequence[int], size: int) -> Task:
    """Return the task number `index` of a split."""
    world_seed = f"{seed}-{index}"
    world = World(split, world_seed, size)
    path, relations = world.walk(world.random.choice(list(hops)))
    chain = "".join(f"the {relation} of " for relation in reversed(relations))
    data: dict[str, Any] = {
        "world": [split, world_seed, size],
        "question": f"Who is {chain}{path[0]}?",
        "golden_answers": [path[-1]],
        "metadata": {
            "hops": len(relations),
            "supporting_titles": path[:-1],
            "decomposition": _decompose(path, relations),
        },
    }
    return Task(f"{split}-{index}", split, data, difficulty=len(relations))


def _decompose(path: Sequence[str], relations: Sequence[str]) -> list[dict[str, str]]:
    entities = [path[0], *(f"#{number}" for number in range(1, len(relations)))]
    return [
        {"search": entity, "question": f"{entity} {relation}", "answer": answer}
        for entity, relation, answer in zip(entities, relations, path[1:], strict=True)
    ]
