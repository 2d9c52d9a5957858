"""Attention over a token trie, registered with transformers, so that any causal model runs on it unchanged.

A slot attends to its ancestors and itself: exactly what it would see in each of its sequences. The trie
travels to the attention layers as the keyword argument `trie` of the model's decoder. Two ways to the same
numbers: `flash` on the CPU (fast), and here `plain_attention`, in public PyTorch only, for everything else.

Shapes: H query heads, K key heads, T slots, D head width; the batch size B is 1.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

from agentrl.errors import UsageError
from agentrl_torch import flash
from agentrl_torch.trie import Node, Trie

NAME = "agentrl_trie"
PLAIN = "agentrl_trie_plain"

# What a layer may ask for that a trie's attention cannot give.
_REFUSED = {"sliding_window": "a sliding window", "softcap": "soft-capped scores", "s_aux": "attention sinks"}


def trie_attention(
    module: torch.nn.Module,
    query_BHTD: Tensor,
    key_BKTD: Tensor,
    value_BKTD: Tensor,
    attention_mask: Tensor | None = None,
    scaling: float | None = None,
    plain: bool = False,
    trie: Trie | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attend as the trie says, the fastest way unless `plain`; returns (B, T, H, D)."""
    trie = _checked(module, trie, options)
    scale = query_BHTD.shape[-1] ** -0.5 if scaling is None else scaling
    # Under autocast, rotary embeddings widen queries and keys; the values still have the type to compute in.
    query_BHTD, key_BKTD = query_BHTD.to(value_BKTD.dtype), key_BKTD.to(value_BKTD.dtype)
    fast = flash.supports(query_BHTD, key_BKTD, value_BKTD) and not plain
    attend = flash.flash_attention if fast else plain_attention
    out_BHTD = attend(query_BHTD, key_BKTD, value_BKTD, trie.nodes, scale)
    return out_BHTD.transpose(1, 2).contiguous(), None


def plain_attention(
    query_BHTD: Tensor, key_BKTD: Tensor, value_BKTD: Tensor, nodes: list[Node], scale: float
) -> Tensor:
    """Attend node by node, each to the keys of its ancestors and its own, (1, H, T, D)."""
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


def _checked(module: torch.nn.Module, trie: Trie | None, options: dict[str, Any]) -> Trie:
    """Return the trie, or refuse what would not be exact."""
    for option, words in _REFUSED.items():
        if options.get(option) is not None:
            raise UsageError(
                f"the model's attention uses {words}, which training on shared prefixes cannot do"
            )
    if not getattr(module, "is_causal", True):
        raise UsageError("the model's attention is not causal; choose a causal language model")
    if trie is None:
        raise UsageError("the model does not hand the token trie on to its attention; choose another model")
    return trie


AttentionInterface.register(NAME, trie_attention)
AttentionInterface.register(PLAIN, partial(trie_attention, plain=True))
