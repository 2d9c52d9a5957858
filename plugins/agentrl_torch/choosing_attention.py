"""Chooses the way of attention over the trie that a model takes on its device, before a run relies on it.

The kernel of `flex` has to be compiled, which needs Triton and a C compiler and is not possible for all
heads. So it is compiled for the heads of the model at the start, for all layers and for the last one, with
gradients and without, and must give the numbers of the plain way.

Shapes: B batch, always 1, H query heads, K key heads, T slots, Q of them with a query, D head width.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedConfig

from agentrl.errors import first_line
from agentrl_torch import flex
from agentrl_torch.attention import FLASH, FLEX, PLAIN, plain_attention
from agentrl_torch.forward import autocast
from agentrl_torch.layout import Layout, lay_out
from agentrl_torch.trie import build
from agentrl_torch.world import ALONE, World

# How far from the plain way the kernel may be about a slot, as a part of what is right: both round to the
# type that they compute in, and sum in another order.
_TOLERANCES = {torch.bfloat16: 0.05, torch.float32: 1e-3, torch.float64: 1e-6}


def choose(
    config: PreTrainedConfig, dtype: torch.dtype, device: str, world: World = ALONE
) -> tuple[str, str | None]:
    """Return the fastest way that works on all ranks, and what is in the way of a faster one, if anything is.

    `config` is the model's, `dtype` that of the matrix products, and `device` where they will be computed.
    """
    place = torch.device(device)
    if place.type not in flex.DEVICES:
        return FLASH, None
    obstacles = world.gather(_obstacle(config.get_text_config(), dtype, place))
    for rank, obstacle in enumerate(obstacles):
        if obstacle is not None:
            return PLAIN, obstacle if world.size == 1 else f"on rank {rank}: {obstacle}"
    return FLEX, None


def _obstacle(config: Any, dtype: torch.dtype, device: torch.device) -> str | None:
    """Return what keeps the compiled kernel from the right numbers for heads such as a model's."""
    layout = _layout()
    tensors = _random_heads(config, layout, dtype, device)
    try:
        # What is compiled outside of it would not be used in it.
        with autocast(device, dtype):
            found = _results(partial(_by_flex, layout), tensors)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # what compilers raise is written down nowhere
        return first_line(_root(error))
    right = _results(partial(_plainly, layout), tensors)
    gap = float(torch.stack(list(map(_gap, found, right))).max())
    return None if gap <= _TOLERANCES[dtype] else f"its numbers are off by {gap:.2g} of what is right"


def _root(error: BaseException) -> BaseException:
    """Return what an error came from."""
    return error if error.__cause__ is None else _root(error.__cause__)


def _layout() -> Layout:
    """Return a trie of which some slots are read.

    What is compiled for sizes that are equal by chance has to be compiled again where they are not; so there
    are 7 blocks of slots, and 5 of those that are read.
    """
    ids = np.arange(600, dtype=np.int32)
    trie = build([ids, np.concatenate([ids[:293], ids[:250]])])
    slots = np.arange(len(trie))
    return lay_out(trie, slots[slots % 4 > 0])


def _random_heads(config: Any, layout: Layout, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """Return queries, keys, values as layers of the model have them, and a gradient, (B, H or K, T, D)."""
    heads = int(config.num_attention_heads)
    key_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    slots, read = layout.nodes[-1].stop, len(_reads(layout))
    draw = torch.Generator().manual_seed(0)
    counts = (slots, heads), (slots, key_heads), (slots, key_heads), (slots + read, heads)
    drawn = (torch.randn(1, *count, width, generator=draw) for count in counts)
    return [tensor.to(device, dtype).transpose(1, 2) for tensor in drawn]


def _results(attend: Callable[..., Tensor], tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return what attention gives, the gradients of what goes in, and what it gives where none are wanted."""
    *inputs, gradient_BHQD = tensors
    with torch.enable_grad():
        leaves = [tensor.detach().requires_grad_() for tensor in inputs]
        out_BHQD = attend(*leaves)
        gradients = torch.autograd.grad(out_BHQD, leaves, gradient_BHQD)
    with torch.no_grad():
        return [out_BHQD.detach(), *gradients, attend(*inputs)]


def _by_flex(layout: Layout, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return what all slots get, and then what those get that are read, (B, H, T + Q, D)."""
    masks, scale = layout.once(flex.make_masks, query.device), query.shape[-1] ** -0.5
    assert masks.last is not None
    read = query.index_select(2, _reads(layout).to(query.device))
    calls = (query, masks.every), (read, masks.last)
    return torch.cat([flex.attend(rows, key, value, mask, scale) for rows, mask in calls], 2)


def _plainly(layout: Layout, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return the same in the plain way."""
    out_BHTD = plain_attention(query, key, value, layout.nodes, query.shape[-1] ** -0.5)
    return torch.cat([out_BHTD, out_BHTD.index_select(2, _reads(layout).to(query.device))], 2)


def _reads(layout: Layout) -> Tensor:
    assert layout.reads is not None
    return layout.reads


def _gap(found_BHTD: Tensor, right_BHTD: Tensor) -> Tensor:
    """Return how far off a slot is at most, as a part of what is right for it, or for slots on average."""
    both = (found_BHTD - right_BHTD).float(), right_BHTD.float()
    gaps_T, lengths_T = (torch.linalg.vector_norm(each_BHTD, dim=(0, 1, 3)) for each_BHTD in both)
    largest: Tensor = (gaps_T / lengths_T.maximum(lengths_T.mean())).max()
    return largest
