"""Trie attention on the CPU without a mask, a concatenation or a copy of keys.

Depth first, the descendants of a node are one contiguous range of slots. So every node takes two calls of
PyTorch's flash kernel, on views: its tokens attend causally to themselves, and all its descendants attend to
all of its tokens. What a token gets from its own node and from each node above it is merged by log-sum-exp:

    out = sum_b exp(lse_b - lse) out_b        lse = log sum_b exp(lse_b)

Backward, every block is differentiated with the *merged* output and log-sum-exp. Its probabilities then come
out as exp(q.k - lse), those of the whole row, and the blocks' gradients add up to the exact gradient: the
same identity that ring attention rests on (Liu et al. 2023, Ring Attention, arXiv:2310.01889).

Shapes: H query heads, K key heads (H is a multiple of K), T slots, D head width; the batch size B is 1.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from agentrl_torch.trie import Node

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default


def supports(query_BHTD: Tensor, key_BKTD: Tensor, value_BKTD: Tensor) -> bool:
    """Return whether the CPU's flash kernel takes these tensors."""
    widths = {tensor.shape[-1] for tensor in (query_BHTD, key_BKTD, value_BKTD)}
    floats = (torch.float32, torch.float64, torch.bfloat16)
    return query_BHTD.device.type == "cpu" and query_BHTD.dtype in floats and len(widths) == 1


def flash_attention(
    query_BHTD: Tensor, key_BKTD: Tensor, value_BKTD: Tensor, nodes: Sequence[Node], scale: float
) -> Tensor:
    """Return what each slot attends to among its ancestors and itself, (1, H, T, D)."""
    out_BHTD: Tensor = _FlashTrie.apply(query_BHTD, key_BKTD, value_BKTD, nodes, scale)
    return out_BHTD


class _FlashTrie(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, nodes: Sequence[Node], scale: float
    ) -> Tensor:
        # Slots before heads in memory, which is how the layers around want it.
        out = query.new_empty(1, query.shape[2], query.shape[1], query.shape[3]).transpose(1, 2)
        wide = torch.promote_types(query.dtype, torch.float32)
        lse = torch.empty(query.shape[:3], dtype=wide)
        for queries, keys, causal in _blocks(nodes):
            block = query[:, :, queries], key[:, :, keys], value[:, :, keys]
            out_block, lse_block = _forward(*block, 0.0, causal, scale=scale)
            if causal:  # the first block of these tokens
                out[:, :, queries], lse[:, :, queries] = out_block, lse_block
            else:
                _merge(out[:, :, queries], lse[:, :, queries], out_block, lse_block)
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.nodes, ctx.scale = nodes, scale
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, lse = ctx.saved_tensors
        grad_query, grad_key, grad_value = (torch.empty_like(x) for x in (query, key, value))
        for queries, keys, causal in _blocks(ctx.nodes):
            block = query[:, :, queries], key[:, :, keys], value[:, :, keys]
            merged = out[:, :, queries], lse[:, :, queries]
            found = _backward(grads[0][:, :, queries], *block, *merged, 0.0, causal, scale=ctx.scale)
            places = grad_query[:, :, queries], grad_key[:, :, keys], grad_value[:, :, keys]
            for place, gradient in zip(places, found, strict=True):
                if causal:
                    place.copy_(gradient)
                else:
                    place.add_(gradient)
        return grad_query, grad_key, grad_value, None, None


def _blocks(nodes: Sequence[Node]) -> list[tuple[slice, slice, bool]]:
    """Return the queries, the keys and whether they are causal, for each call; the causal ones first."""
    own = [(slice(node.start, node.stop), slice(node.start, node.stop), True) for node in nodes]
    below = [
        (slice(node.stop, node.subtree_stop), slice(node.start, node.stop), False)
        for node in nodes
        if node.stop < node.subtree_stop
    ]
    return own + below


def _merge(out_BHQD: Tensor, lse_BHQ: Tensor, more_BHQD: Tensor, lse_more_BHQ: Tensor) -> None:
    """Add a block to what was gathered so far, in place."""
    share_BHQ1 = torch.sigmoid(lse_more_BHQ - lse_BHQ).unsqueeze(-1).to(out_BHQD.dtype)
    out_BHQD.lerp_(more_BHQD, share_BHQ1)
    torch.logaddexp(lse_BHQ, lse_more_BHQ, out=lse_BHQ)
