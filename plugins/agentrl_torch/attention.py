"""Attention over a token trie, registered with transformers, so that any causal model runs on it unchanged.

A slot attends to its ancestors and itself: exactly what it would see in each of its sequences. The layout of
the trie travels to the attention layers as the keyword argument `trie` of the model's decoder. Three
ways lead to the same numbers: `flash` on the CPU, `flex` on GPUs, and here `plain_attention`, which is public
PyTorch only and needs no compiler.

Shapes: B batch, always 1, H query heads, K key heads, T slots, Q of them with a query, D head width.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

from agentrl.errors import UsageError
from agentrl_torch import blocks, flash, flex
from agentrl_torch.layout import Layout
from agentrl_torch.trie import Node

# The first is not called flash: transformers would import another library for any name with that in it.
FLASH = "agentrl_trie_blocks"
FLEX = "agentrl_trie_flex"
PLAIN = "agentrl_trie_plain"

# What a layer may ask for that attention over a trie cannot give.
_REFUSED = {"sliding_window": "a sliding window", "softcap": "soft-capped scores", "s_aux": "attention sinks"}


def trie_attention(
    module: torch.nn.Module,
    query_BHTD: Tensor,
    key_BKTD: Tensor,
    value_BKTD: Tensor,
    attention_mask: Tensor | None = None,
    scaling: float | None = None,
    way: str = FLASH,
    trie: Layout | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attend as the trie says, this way where it can be gone, else the plain one; returns (B, T, H, D)."""
    trie = _checked(module, trie, options)
    scale = query_BHTD.shape[-1] ** -0.5 if scaling is None else scaling
    # Under autocast, rotary embeddings widen queries and keys; the values still have the type to compute in.
    query_BHTD, key_BKTD = query_BHTD.to(value_BKTD.dtype), key_BKTD.to(value_BKTD.dtype)
    tensors = query_BHTD, key_BKTD, value_BKTD
    last = _is_last(module)
    if way == FLEX and query_BHTD.shape[2] >= flex.FEWEST:
        out_BHTD = _by_flex(*tensors, trie, scale, last)
    elif way == FLASH and flash.supports(*tensors):
        out_BHTD = _by_flash(*tensors, trie, scale, last)
    else:
        out_BHTD = plain_attention(*tensors, trie.nodes, scale)
    return out_BHTD.transpose(1, 2).contiguous(), None


def _by_flash(query: Tensor, key: Tensor, value: Tensor, trie: Layout, scale: float, last: bool) -> Tensor:
    covers = trie.once(blocks.cover)
    if not last or trie.reads is None or covers.last is None:
        return flash.flash_attention(query, key, value, covers.every, scale)
    cover = covers.last
    return _where_read(query, trie.reads, lambda read: flash.flash_attention(read, key, value, cover, scale))


def _by_flex(query: Tensor, key: Tensor, value: Tensor, trie: Layout, scale: float, last: bool) -> Tensor:
    masks = trie.once(flex.make_masks, query.device)
    if not last or masks.reads is None or masks.last is None:
        return flex.attend(query, key, value, masks.every, scale)
    mask = masks.last
    return _where_read(query, masks.reads, lambda read: flex.attend(read, key, value, mask, scale))


def _where_read(query_BHTD: Tensor, reads: Tensor, attend: Callable[[Tensor], Tensor]) -> Tensor:
    """Attend with the queries of `reads` only; other rows of the output, which nothing reads, are 0."""
    out_BHQD = attend(query_BHTD.index_select(2, reads))
    return torch.zeros_like(query_BHTD).index_copy(2, reads, out_BHQD)


def plain_attention(
    query_BHTD: Tensor, key_BKTD: Tensor, value_BKTD: Tensor, nodes: list[Node], scale: float
) -> Tensor:
    """Attend node by node, each to the keys of its ancestors and its own, (B, H, T, D)."""
    repeats = query_BHTD.shape[1] // key_BKTD.shape[1]
    key_BHTD, value_BHTD = (x.repeat_interleave(repeats, 1) for x in (key_BKTD, value_BKTD))
    outs = []
    for node in nodes:
        ranges = _path(nodes, node)
        key, value = (torch.cat([x[:, :, a:b] for a, b in ranges], 2) for x in (key_BHTD, value_BHTD))
        length, seen = node.stop - node.start, key.shape[2]
        mask = torch.ones(length, seen, dtype=torch.bool, device=key.device).tril(seen - length)
        query = query_BHTD[:, :, node.start : node.stop]
        outs.append(F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale))
    return torch.cat(outs, 2)


def _path(nodes: list[Node], node: Node) -> list[tuple[int, int]]:
    """Return the slot ranges from the root down to `node`, its own included."""
    ranges = [(node.start, node.stop)]
    while node.parent >= 0:
        node = nodes[node.parent]
        ranges.append((node.start, node.stop))
    return ranges[::-1]


def _is_last(module: torch.nn.Module) -> bool:
    config: Any = getattr(module, "config", None)
    return config is not None and getattr(module, "layer_idx", None) == config.num_hidden_layers - 1


def _checked(module: torch.nn.Module, trie: Layout | None, options: dict[str, Any]) -> Layout:
    """Return the layout, or refuse what would not be exact."""
    for option, words in _REFUSED.items():
        if options.get(option) is not None:
            raise UsageError(f"the model's attention uses {words}, which cannot train on shared prefixes")
    if not getattr(module, "is_causal", True):
        raise UsageError("the model's attention is not causal; choose a causal language model")
    if trie is None:
        raise UsageError("the model does not hand the token trie on to its attention; choose another model")
    return trie


for way in (FLASH, FLEX, PLAIN):
    AttentionInterface.register(way, partial(trie_attention, way=way))
