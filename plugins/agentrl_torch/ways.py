"""Which way of attention over the trie a model takes on its device, found out before a run relies on it.

The kernel of `flex` has to be compiled, which needs Triton and a C compiler and is not possible for all
heads. So it is compiled for the heads of the model at the start, and must give the numbers of the plain way,
forward and backward.

Shapes: B batch, always 1, H query heads, K key heads, T slots, D head width.
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
from agentrl_torch.trie import build

# How far from the plain way the kernel may be, as a part of the length of a tensor: both round to bfloat16,
# and sum in another order.
_TOLERANCE = 0.05


def choose(config: PreTrainedConfig, dtype: torch.dtype, device: str) -> tuple[str, str | None]:
    """Return the fastest way that works, and in words what is in the way of a faster one, if anything is.

    `config` is the model's, `dtype` that of the matrix products, and `device` where they will be computed.
    """
    place = torch.device(device)
    if place.type not in flex.DEVICES:
        return FLASH, None
    obstacle = _obstacle(config.get_text_config(), dtype, place)
    return FLEX if obstacle is None else PLAIN, obstacle


def _obstacle(config: Any, dtype: torch.dtype, device: torch.device) -> str | None:
    """Return what keeps the compiled kernel from the right numbers for heads such as a model's."""
    ids = np.arange(500, dtype=np.int32)
    trie = build([ids, np.concatenate([ids[:253], ids[::2]])])
    mask = flex.make_masks(trie.nodes, None, device).every
    tensors = _random_heads(config, len(trie), dtype, device)
    scale = tensors[0].shape[-1] ** -0.5
    try:
        found = _with_gradients(partial(flex.attend, mask=mask, scale=scale), tensors)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # what compilers raise is written down nowhere
        return first_line(_root(error))
    plainly = partial(plain_attention, nodes=trie.nodes, scale=scale)
    expected = _with_gradients(plainly, tensors)
    gaps = [(a - b).norm() / b.norm() for a, b in zip(found, expected, strict=True)]
    gap = float(torch.stack(gaps).max())
    return None if gap <= _TOLERANCE else f"its numbers are off by {gap:.2g} of what is right"


def _root(error: BaseException) -> BaseException:
    """Return what an error came from."""
    return error if error.__cause__ is None else _root(error.__cause__)


def _random_heads(config: Any, slots: int, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """Return queries, keys, values and a gradient as layers of the model have them, (B, H or K, T, D)."""
    heads = int(config.num_attention_heads)
    key_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    draw = torch.Generator().manual_seed(0)
    shapes = [(1, slots, count, width) for count in (heads, key_heads, key_heads, heads)]
    return [torch.randn(shape, generator=draw).to(device, dtype).transpose(1, 2) for shape in shapes]


@torch.enable_grad()
def _with_gradients(attend: Callable[..., Tensor], tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return what attention gives, and the gradients of queries, keys and values."""
    *inputs, gradient_BHTD = tensors
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    out_BHTD = attend(*leaves)
    return [out_BHTD.detach(), *torch.autograd.grad(out_BHTD, leaves, gradient_BHTD)]
