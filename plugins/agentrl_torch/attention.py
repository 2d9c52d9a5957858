"""Attention over a token trie, registered with transformers, so that any causal model runs on it unchanged.

A slot attends to its ancestors and itself: exactly what it would see in each of its sequences. The layout of
the trie travels to the attention layers as the keyword argument `trie` of the model's decoder. Two ways lead
to the same numbers: `flash` on the CPU, and here `plain_attention`, which is public PyTorch only.

Shapes: B batch, always 1, H query heads, K key heads, T slots, D head width.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

from agentrl.errors import UsageError
from agentrl_torch import flash
from agentrl_torch.blocks import Layout
from agentrl_torch.trie import Node

NAME = "agentrl_trie"
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
    plain: bool = False,
    trie: Layout | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attend as the trie says, the fastest way unless `plain`; returns (B, T, H, D)."""
    trie = _checked(module, trie, options)
    scale = query_BHTD.shape[-1] ** -0.5 if scaling is None else scaling
    # Under autocast, rotary embeddings widen queries and keys; the values still have the type to compute in.
    query_BHTD, key_BKTD = query_BHTD.to(value_BKTD.dtype), key_BKTD.to(value_BKTD.dtype)
    tensors = query_BHTD, key_BKTD, value_BKTD
    if plain or not flash.supports(*tensors):
        out_BHTD = plain_attention(*tensors, trie.nodes, scale)
    elif trie.last is not None and _is_last(module):
        out_BHTD = _attend_where_read(*tensors, trie, scale)
    else:
        out_BHTD = flash.flash_attention(*tensors, trie.every, scale)
    return out_BHTD.transpose(1, 2).contiguous(), None


def _attend_where_read(
    query_BHTD: Tensor, key_BKTD: Tensor, value_BKTD: Tensor, trie: Layout, scale: float
) -> Tensor:
    """Attend with the queries of `trie.reads` only; other rows of the output, which nothing reads, are 0."""
    assert trie.reads is not None
    assert trie.last is not None
    query_BHQD = query_BHTD.index_select(2, trie.reads)
    out_BHQD = flash.flash_attention(query_BHQD, key_BKTD, value_BKTD, trie.last, scale)
    return torch.zeros_like(query_BHTD).index_copy(2, trie.reads, out_BHQD)


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


AttentionInterface.register(NAME, trie_attention)
AttentionInterface.register(PLAIN, partial(trie_attention, plain=True))
