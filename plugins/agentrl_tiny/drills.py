"""Copying drills: what gives a small transformer the habit of looking things up in what it has read.

A drill is a random table repeated several times, each time in another order; all rows but those of
the first repetition can be completed by copying. Short tables with many targets come first: a model
that starts on long ones does not learn to copy at all.
Shapes: B rows of a batch, T tokens, K rows of a table, W tokens of a table's row.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Words:
    """The token ids that drills are made of; `pairs` are two-token names of the training split."""

    pairs: Sequence[tuple[int, int]]
    relations: Sequence[int]
    words: Sequence[int]
    full_stop: int
    start: int


@dataclass(frozen=True)
class Drill:
    """How long drills are: tables of `rows`, repeated up to `tokens` tokens, `batch` at a time."""

    rows: Sequence[int]
    tokens: int
    batch: int


SHORT = Drill(rows=(2, 3, 4, 6, 8), tokens=130, batch=32)
LONG = Drill(rows=(6, 10, 16, 24), tokens=340, batch=12)


def facts(chance: random.Random, words: Words, rows: int) -> list[list[int]]:
    """Return a table of `first last relation first last .` whose facts share people and relations."""
    people = chance.sample(words.pairs, max(1, rows // 2))
    known = words.relations if chance.random() < 0.7 else chance.sample(words.words, len(words.relations))
    keys = chance.sample([(person, relation) for person in people for relation in known], rows)
    return [[*person, relation, *chance.choice(words.pairs), words.full_stop] for person, relation in keys]


def entries(chance: random.Random, words: Words, rows: int) -> list[list[int]]:
    """Return a table of `key value value`, of any words."""
    keys = chance.sample(words.words, rows)
    return [[key, *chance.choices(words.words, k=2)] for key in keys]


def drill(chance: random.Random, words: Words, shape: Drill) -> tuple[Tensor, Tensor]:
    """Return token ids and the mask of those to be learnt, both (B, T)."""
    rows, make = chance.choice(shape.rows), facts if chance.random() < 0.65 else entries
    width, values = (6, (3, 4)) if make is facts else (3, (1, 2))
    repetitions = max(2, shape.tokens // (width * rows))
    ids, mask = [], []
    for _ in range(shape.batch):
        table = make(chance, words, rows)
        lines = [line for _ in range(repetitions) for line in chance.sample(table, rows)]
        ids.append([words.start, *(token for line in lines for token in line)])
        learnt = [
            number >= rows and place in values for number in range(len(lines)) for place in range(width)
        ]
        mask.append([False, *learnt])
    return torch.tensor(ids), torch.tensor(mask)
