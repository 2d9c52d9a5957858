"""Which rectangles of the attention matrix cover a trie for `flash`: no mask is needed, and little is wasted.

Each query is in exactly one causal block, which lies on the diagonal; everything else it sees are full
rectangles. PyTorch's CPU kernel computes a causal block as if it were full, so long diagonals are halved
until half a block is worth less than the call that would save it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from agentrl_torch.layout import Layout
from agentrl_torch.trie import IntArray, Node

# The longest diagonal that is computed at once, measured on one thread with heads of 32. Backward costs
# more a score, and adds gradients where forward merges outputs: there shorter ones pay.
FORWARD_DIAGONAL = 256
BACKWARD_DIAGONAL = 96


@dataclass(frozen=True, slots=True)
class Block:
    """A call of the attention kernel: rows of queries and of keys; `causal` if it is on the diagonal."""

    queries: slice
    keys: slice
    causal: bool


@dataclass(frozen=True, slots=True)
class Cover:
    """The blocks of one layer's forward and backward pass; the causal ones come first."""

    forward: list[Block]
    backward: list[Block]


@dataclass(frozen=True, slots=True)
class Covers:
    """What covers a trie.

    Attributes:
        every: the queries of all slots.
        last: the queries of those that are read, numbered from 0; None where all are.
    """

    every: Cover
    last: Cover | None


def cover(layout: Layout) -> Covers:
    """Return the blocks that cover a trie."""
    nodes, reads = layout.nodes, layout.reads
    every = Cover(_every(nodes, FORWARD_DIAGONAL), _every(nodes, BACKWARD_DIAGONAL))
    if reads is None:
        return Covers(every, None)
    last = _reading(nodes, reads.numpy())
    return Covers(every, Cover(last, last))


def _every(nodes: Sequence[Node], longest: int) -> list[Block]:
    blocks = [block for node in nodes for block in _diagonal(node.start, node.stop, longest)]
    for node in nodes:
        if node.stop < node.subtree_stop:
            blocks.append(Block(slice(node.stop, node.subtree_stop), slice(node.start, node.stop), False))
    return _causal_first(blocks)


def _diagonal(start: int, stop: int, longest: int) -> list[Block]:
    """Cover the slots of one node among themselves."""
    if stop - start <= longest:
        return [Block(slice(start, stop), slice(start, stop), True)]
    middle = (start + stop) // 2
    below = Block(slice(middle, stop), slice(start, middle), False)
    return [*_diagonal(start, middle, longest), *_diagonal(middle, stop, longest), below]


def _reading(nodes: Sequence[Node], reads: IntArray) -> list[Block]:
    """Cover the queries of `reads`, numbered by their place in it."""
    edges = np.array([(node.start, node.stop, node.subtree_stop) for node in nodes])
    places = np.searchsorted(reads, edges).tolist()
    blocks = []
    for node, (first, end, subtree_end) in zip(nodes, places, strict=True):
        for start, stop in _runs(reads, first, end):
            slot = int(reads[start])
            blocks.append(Block(slice(start, stop), slice(slot, slot + stop - start), True))
            if node.start < slot:
                blocks.append(Block(slice(start, stop), slice(node.start, slot), False))
        if end < subtree_end:
            blocks.append(Block(slice(end, subtree_end), slice(node.start, node.stop), False))
    return _causal_first(blocks)


def _runs(reads: IntArray, first: int, end: int) -> list[tuple[int, int]]:
    """Return where slots follow one another without a gap, as ranges of places from `first` to `end`."""
    if first == end:
        return []
    gaps = np.flatnonzero(np.diff(reads[first:end]) > 1) + first + 1
    return list(pairwise([first, *gaps.tolist(), end]))


def _causal_first(blocks: list[Block]) -> list[Block]:
    return sorted(blocks, key=lambda block: not block.causal)
