"""Trie attention on GPUs: one kernel over those blocks of the attention matrix in which a slot sees another.

Depth first, the descendants of a slot are one contiguous range, so all there is to say about it is its end:

    slot q sees slot k  if  k <= q < ends[k]

PyTorch's `flex_attention` (Dong et al. 2024, arXiv:2412.05496) compiles this into its kernel and leaves out
blocks that hold nothing. Which do follows from the first and the last slot of a block of queries, and from
the nearest and the farthest end in a block of keys; a mask of T x T slots is never made.

Queries and keys are filled up to whole blocks, at least two, so that one compiled kernel does for all sizes.
The slots that this adds are a sequence of their own, which nothing reads.

Shapes: B batch, always 1, H query heads, K key heads (H is a multiple of K), T slots, Q of them with a query,
D head width; I blocks of queries and J of keys, with S slots in each.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from agentrl_torch.layout import Layout
from agentrl_torch.trie import IntArray

# Where it has a kernel for the backward pass, too.
DEVICES = frozenset({"cuda"})
# Slots in a block; the kernel's own blocks divide it.
BLOCK = 128
# With fewer slots there is nothing to leave out.
FEWEST = 2 * BLOCK
# Kernels that are compiled for one model: with and without gradients, for all slots and for those that are
# read, for frozen inputs and others.
_KERNELS = 64


@dataclass(frozen=True, slots=True)
class Masks:
    """What the slots of a trie see, where attention is computed.

    Attributes:
        every: with the queries of all slots.
        reads: the slots that are read, ascending; None means all.
        last: with the queries of `reads` only.
    """

    every: BlockMask
    reads: Tensor | None = None
    last: BlockMask | None = None


def make_masks(layout: Layout, device: torch.device) -> Masks:
    """Return the masks of a trie."""
    nodes, reads = layout.nodes, layout.reads
    ends_T = np.repeat([node.subtree_stop for node in nodes], [node.stop - node.start for node in nodes])
    every = block_mask(ends_T, np.arange(len(ends_T)), device)
    if reads is None:
        return Masks(every)
    return Masks(every, reads.to(device), block_mask(ends_T, reads.numpy(), device))


def block_mask(ends_T: IntArray, slots_Q: IntArray, device: torch.device) -> BlockMask:
    """Return what the queries of `slots_Q`, ascending, see of a trie whose subtrees stop at `ends_T`."""
    keys = _whole(len(ends_T))
    ends_JS = _filled(ends_T, keys, with_=keys)
    slots_IS = _filled(slots_Q, _whole(len(slots_Q)), with_=keys - 1)
    firsts_I1, lasts_I1 = slots_IS[:, :1], slots_IS[:, -1:]
    starts_J = np.arange(0, keys, BLOCK)
    some_IJ = (starts_J <= lasts_I1) & (firsts_I1 < ends_JS.max(1))
    all_IJ = (starts_J + BLOCK - 1 <= firsts_I1) & (lasts_I1 < ends_JS.min(1))
    ends, slots = (torch.from_numpy(x.ravel()).to(device) for x in (ends_JS, slots_IS))

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        slot = slots[query]
        return (key <= slot) & (slot < ends[key])

    partly_IJ = some_IJ & ~all_IJ
    # The keys of each block of queries, and for the backward pass the queries of each block of keys.
    rows = *_ordered(partly_IJ), *_ordered(all_IJ)
    columns = *_ordered(partly_IJ.T), *_ordered(all_IJ.T)
    return BlockMask((slots_IS.size, keys), *rows, *columns, (BLOCK, BLOCK), sees).to(device)


def attend(query_BHQD: Tensor, key_BKTD: Tensor, value_BKTD: Tensor, mask: BlockMask, scale: float) -> Tensor:
    """Return what each query gets from the slots that it sees, (B, H, Q, D)."""
    queries, keys = mask.shape[-2:]
    # The kernel's own scale is part of what is compiled; another one goes into the queries.
    factor = scale * math.sqrt(query_BHQD.shape[-1])
    scaled_BHQD = query_BHQD if math.isclose(factor, 1) else query_BHQD * factor
    out_BHQD: Tensor = compiled()(
        _lengthened(scaled_BHQD, queries),
        _lengthened(key_BKTD, keys),
        _lengthened(value_BKTD, keys),
        block_mask=mask,
        enable_gqa=query_BHQD.shape[1] != key_BKTD.shape[1],
    )
    return out_BHQD[:, :, : query_BHQD.shape[2]]


@cache
def compiled() -> Callable[..., Any]:
    """Return the kernel, which is compiled when it is first called."""
    options: dict[str, Any] = {"dynamic": True, "recompile_limit": _KERNELS}
    # All of it or an error: where PyTorch gives up compiling, it would hold a score for each pair of slots.
    kernel: Callable[..., Any] = torch.compile(flex_attention, fullgraph=True, **options)
    return kernel


def _whole(slots: int) -> int:
    """Return how many slots there are once blocks are whole."""
    return BLOCK * max(2, math.ceil(slots / BLOCK))


def _filled(numbers: IntArray, length: int, with_: int) -> NDArray[np.int32]:
    """Return `numbers` with more of them at the end, block by block."""
    filled = np.full(length, with_, np.int32)
    filled[: len(numbers)] = numbers
    return filled.reshape(-1, BLOCK)


def _ordered(blocks_IJ: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
    """Return how many blocks there are in each row, and which: (1, 1, I) and (1, 1, I, J)."""
    counts_I = blocks_IJ.sum(1, dtype=np.int32)
    # Those that are there come first.
    which_IJ = np.argsort(~blocks_IJ, axis=1, kind="stable").astype(np.int32)
    return torch.from_numpy(counts_I)[None, None], torch.from_numpy(which_IJ)[None, None]


def _lengthened(x_BHTD: Tensor, length: int) -> Tensor:
    """Return as many slots, slots before heads in memory, which is how the layers around want the output."""
    x_BTHD = x_BHTD.transpose(1, 2)
    added = length - x_BTHD.shape[1]
    longer_BTHD = F.pad(x_BTHD, (0, 0, 0, 0, 0, added)) if added else x_BTHD.contiguous()
    return longer_BTHD.transpose(1, 2)
