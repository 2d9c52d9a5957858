"""Attention over a part of the keys, such that the parts can be put together exactly.

With the log-sum-exp of its scores, what a query takes from keys a and keys b is what it takes from both:

    softmax over a and b = sigmoid(lse_a - lse_b) * softmax over a + sigmoid(lse_b - lse_a) * softmax over b

Shape letters: B batch, K key-value heads, Q queries, L keys, D head size.
"""

import torch
from torch import Tensor


def merge(out: Tensor, lse: Tensor, more_out: Tensor, more_lse: Tensor) -> None:
    """Make `out`, `lse` those of the union of the keys of both parts, in place."""
    share = torch.sigmoid(more_lse - lse)
    out.lerp_(more_out, share.unsqueeze(-1).to(out.dtype))
    torch.logaddexp(lse, more_lse, out=lse)


def attend(
    query_BKQD: Tensor,
    key_BKLD: Tensor,
    value_BKLD: Tensor,
    scale: float,
    bias: Tensor | None = None,
    causal: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return softmax(q k^T scale + bias) v, (B, K, Q, D), and the log-sum-exp, float32 (B, K, Q).

    `causal` lets query i see keys 0 to i.
    """
    if has_kernel(query_BKQD, value_BKLD):
        # The kernel behind scaled_dot_product_attention, which itself does not return the log-sum-exp.
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query_BKQD, key_BKLD, value_BKLD, 0.0, causal, attn_mask=bias, scale=scale
        )
        return out, lse
    return _attend_by_matmul(query_BKQD, key_BKLD, value_BKLD, scale, bias, causal)


def has_kernel(query: Tensor, value: Tensor) -> bool:
    """Return whether the CPU's kernel takes tensors of this kind."""
    return query.device.type == "cpu" and query.shape[-1] == value.shape[-1]


def _attend_by_matmul(
    query_BKQD: Tensor, key_BKLD: Tensor, value_BKLD: Tensor, scale: float, bias: Tensor | None, causal: bool
) -> tuple[Tensor, Tensor]:
    scores_BKQL = torch.matmul(query_BKQD, key_BKLD.transpose(2, 3)).to(sum_dtype(query_BKQD.dtype)) * scale
    if bias is not None:
        scores_BKQL += bias
    if causal:
        later_QL = torch.ones(scores_BKQL.shape[-2:], dtype=torch.bool, device=scores_BKQL.device).triu(1)
        scores_BKQL.masked_fill_(later_QL, float("-inf"))
    weights_BKQL = torch.softmax(scores_BKQL, dim=-1).to(value_BKLD.dtype)
    return torch.matmul(weights_BKQL, value_BKLD), torch.logsumexp(scores_BKQL, dim=-1)


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type in which sums of exponentials are kept."""
    return torch.float64 if dtype == torch.float64 else torch.float32
