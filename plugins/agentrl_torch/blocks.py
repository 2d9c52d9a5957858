"""Which rectangles of the attention matrix cover a trie, so that no mask is needed and little is wasted.

Each query is in exactly one causal block, which lies on the diagonal; everything else it sees are full
rectangles. PyTorch's CPU kernel computes a causal block as if it were full, so long diagonals are halved
until half a block is worth less than the call that would save it.

In the last layer only the slots whose logits are read need queries (`reads`): their outputs alone go on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from agentrl_torch.flex import Masks
from agentrl_torch.trie import IntArray, Node, Trie

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


@dataclass(slots=True)
class Layout:
    """A trie as attention needs it.

    Attributes:
        nodes: of the trie.
        every: covers the queries of all slots.
        reads: the slots that the last layer is for, ascending; None means all.
        last: covers the queries of `reads` only, numbered from 0.
        masks: for `flex`, once a layer has asked for them.
    """

    nodes: list[Node]
    every: Cover
    reads: torch.Tensor | None = None
    last: Cover | None = None
    masks: Masks | None = None


def lay_out(trie: Trie, reads: IntArray | None = None) -> Layout:
    """Return the blocks that cover `trie`."""
    every = Cover(_every(trie.nodes, FORWARD_DIAGONAL), _every(trie.nodes, BACKWARD_DIAGONAL))
    if reads is None:
        return Layout(trie.nodes, every)
    last = _reading(trie.nodes, reads)
    return Layout(trie.nodes, every, torch.from_numpy(reads), Cover(last, last))


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
