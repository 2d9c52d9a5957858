"""Trie attention on the CPU without a mask, a concatenation or a copy of keys.

Depth first, the descendants of a node are one contiguous range of slots. So the tokens of a node attend
causally to themselves, and all its descendants attend to all of its tokens: blocks (`blocks`) that PyTorch's
flash kernel takes as views. What a token gets from several blocks is merged by log-sum-exp:

    out = sum_b exp(lse_b - lse) out_b        lse = log sum_b exp(lse_b)

Backward, every block is differentiated with the *merged* output and log-sum-exp. Its probabilities then come
out as exp(q.k - lse), those of the whole row, and the blocks' gradients add up to the exact gradient: the
same identity that ring attention rests on (Liu et al. 2023, Ring Attention, arXiv:2310.01889).

Shapes: B batch, always 1, H query heads, K key heads (H is a multiple of K), T slots, Q of them with a
query, D head width.
"""

from typing import Any

import torch
from torch import Tensor

from agentrl_torch.blocks import Cover

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default


def supports(query_BHQD: Tensor, key_BKTD: Tensor, value_BKTD: Tensor) -> bool:
    """Return whether the CPU's flash kernel takes these tensors."""
    widths = {tensor.shape[-1] for tensor in (query_BHQD, key_BKTD, value_BKTD)}
    floats = (torch.float32, torch.float64, torch.bfloat16)
    return query_BHQD.device.type == "cpu" and query_BHQD.dtype in floats and len(widths) == 1


def flash_attention(
    query_BHQD: Tensor, key_BKTD: Tensor, value_BKTD: Tensor, cover: Cover, scale: float
) -> Tensor:
    """Return what each query gets from the blocks of `cover`, (B, H, Q, D)."""
    out_BHQD: Tensor = _FlashTrie.apply(query_BHQD, key_BKTD, value_BKTD, cover, scale)
    return out_BHQD


class _FlashTrie(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, cover: Cover, scale: float) -> Tensor:
        # Slots before heads in memory, which is how the layers around want it.
        out = torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
        lse = query.new_empty(query.shape[:3], dtype=torch.promote_types(query.dtype, torch.float32))
        for block in cover.forward:
            queries, keys = block.queries, block.keys
            views = query[:, :, queries], key[:, :, keys], value[:, :, keys]
            out_block, lse_block = _forward(*views, 0.0, block.causal, scale=scale)
            if block.causal:  # the first block of these queries
                out[:, :, queries], lse[:, :, queries] = out_block, lse_block
            else:
                _merge(out[:, :, queries], lse[:, :, queries], out_block, lse_block)
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.cover, ctx.scale = cover, scale
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, lse = ctx.saved_tensors
        gradients = [torch.zeros_like(tensor) for tensor in (query, key, value)]
        for block in ctx.cover.backward:
            queries, keys = block.queries, block.keys
            views = query[:, :, queries], key[:, :, keys], value[:, :, keys]
            merged = out[:, :, queries], lse[:, :, queries]
            found = _backward(grads[0][:, :, queries], *views, *merged, 0.0, block.causal, scale=ctx.scale)
            for gradient, part, place in zip(gradients, found, (queries, keys, keys), strict=True):
                gradient[:, :, place].add_(part)
        return *gradients, None, None


def _merge(out_BHQD: Tensor, lse_BHQ: Tensor, more_BHQD: Tensor, lse_more_BHQ: Tensor) -> None:
    """Add a block to what was gathered so far, in place."""
    share_BHQ1 = torch.sigmoid(lse_more_BHQ - lse_BHQ).unsqueeze(-1).to(out_BHQD.dtype)
    out_BHQD.lerp_(more_BHQD, share_BHQ1)
    torch.logaddexp(lse_BHQ, lse_more_BHQ, out=lse_BHQ)
