"""Lays token sequences into one compressed trie, so that what they share is computed once.

Two sequences that begin alike share the slots of their common beginning; slots are numbered depth first, so
the subtree of every node is one contiguous range: that is all that attention needs to know (`attention`).
Sorting puts sequences that share a beginning next to each other, so comparing neighbours finds every branch.
Time and memory are linear in the number of tokens.

Shapes: T unique tokens (slots), L tokens of one sequence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
Ids = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Node:
    """A run of slots without a branch: `start` to `stop`; its descendants are `stop` to `subtree_stop`.

    `parent` is the index of the node it hangs from, or -1.
    """

    start: int
    stop: int
    subtree_stop: int
    parent: int


@dataclass(slots=True)
class Trie:
    """Sequences laid over one another.

    Attributes:
        token_ids_T: the id in each slot.
        positions_T: how deep each slot is: its position in every sequence that runs through it.
        nodes: depth first, so a parent comes before its children.
        slots: for each sequence the slots of its tokens, (L,).
    """

    token_ids_T: torch.Tensor
    positions_T: torch.Tensor
    nodes: list[Node]
    slots: list[IntArray]

    def __len__(self) -> int:
        """Return the number of unique tokens."""
        return len(self.token_ids_T)


def build(sequences: Sequence[Ids]) -> Trie:
    """Lay `sequences` into a trie; none is empty."""
    order, shared = sort_by_beginning(sequences)
    slots: list[IntArray] = [np.empty(0, np.int64)] * len(sequences)
    fresh, depths, forks = [], [], []
    before = np.empty(0, np.int64)
    total = 0
    for index, common in zip(order, shared, strict=True):
        ids = sequences[index]
        new = len(ids) - common
        forks.append((total, int(before[common - 1]) if common else -1, new))
        fresh.append(ids[common:])
        depths.append(np.arange(common, len(ids)))
        before = np.concatenate([before[:common], np.arange(total, total + new)])
        slots[index] = before
        total += new
    nodes = _nodes([(start, parent) for start, parent, new in forks if new], total)
    token_ids_T = torch.from_numpy(np.concatenate(fresh).astype(np.int64))
    return Trie(token_ids_T, torch.from_numpy(np.concatenate(depths)), nodes, slots)


def count_unique(sequences: Sequence[Ids]) -> int:
    """Return how many slots a trie of `sequences` would have."""
    _, shared = sort_by_beginning(sequences)
    return sum(len(ids) for ids in sequences) - sum(shared)


def sort_by_beginning(sequences: Sequence[Ids]) -> tuple[list[int], list[int]]:
    """Return the indices in lexicographic order, and how many tokens each shares with the one before it."""
    # Big-endian bytes compare like the ids themselves, and Python compares bytes at the speed of memcmp.
    keys = [ids.astype(">u4").tobytes() for ids in sequences]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    pairs = pairwise(order)
    return order, [0] * bool(order) + [_common(sequences[a], sequences[b]) for a, b in pairs]


def _common(first: Ids, second: Ids) -> int:
    """Return how many tokens the two sequences share from the beginning."""
    length = min(len(first), len(second))
    differs = first[:length] != second[:length]
    place = int(differs.argmax()) if length else 0
    return place if length and differs[place] else length


def _nodes(runs: list[tuple[int, int]], total: int) -> list[Node]:
    """Cut the slots into nodes, given where each run of new slots starts and the slot it hangs from."""
    branches = [(start, parent) for start, parent in runs if parent != start - 1 or parent < 0]
    above = dict(branches)
    for _, parent in branches:
        if parent >= 0:
            above.setdefault(parent + 1, parent)  # the older child of a branching slot is a node of its own
    starts = sorted(above)
    index_of_last = {stop - 1: index for index, stop in enumerate([*starts[1:], total])}
    parents = [index_of_last[above[start]] if above[start] >= 0 else -1 for start in starts]
    stops = [*starts[1:], total]
    subtree_stops = list(stops)
    for index in range(len(starts) - 1, -1, -1):
        if parents[index] >= 0:
            subtree_stops[parents[index]] = max(subtree_stops[parents[index]], subtree_stops[index])
    return [Node(*fields) for fields in zip(starts, stops, subtree_stops, parents, strict=True)]
