"""Attention over what is kept, as a function that any model of transformers calls in place of its own.

One forward computes the new tokens of many sequences, packed one after another without padding. What a token
looks back to lies in up to three places: prefixes shared with others, the sequence's own kept tokens,
and the new tokens before it. Each part is attended to on its own, for all rows at once where they
share it, and the parts are merged (see `partial_attention`).

Shape letters: N new tokens, R rows with one new token, S slots of the tails that are looked at, Q queries,
L keys, T longest tail, H query heads, K key-value heads, G = H / K, D head size; B is the batch, of 1 where
tokens are packed.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from agentrl.errors import UsageError
from agentrl_torch.kv_cache import Tails
from agentrl_torch.partial_attention import attend, merge, sum_dtype
from agentrl_torch.single_tokens import SingleTokens

NAME = "agentrl_cached"


@dataclass(slots=True)
class Chunk:
    """Several new tokens of one sequence, N[begin:end], and where its keys and values are kept.

    `keys` and `values` are (1, K, L, D) a layer; `kept` of the L were there before, then come the new ones.
    """

    begin: int
    end: int
    kept: int
    keys: Sequence[Tensor]
    values: Sequence[Tensor]


@dataclass(slots=True)
class Shared:
    """The tokens N[begin:end] look back to all of a prefix: `keys`, `values` (1, K, L, D) a layer."""

    begin: int
    end: int
    keys: Sequence[Tensor]
    values: Sequence[Tensor]


@dataclass(slots=True)
class Layout:
    """Where the new tokens of one forward go, and what they look back to.

    `tail_tokens` are the indices, among the N, of the tokens that go into the tails, None for all;
    `places` are where: an index for each of their heads into a layer's tails as rows of D.
    `shared` are runs of prefixes whose followers are side by side, parents before children.
    `last` is for the last layer, once it has stored all: there only the tokens `reads` look back, each as if
    it were its sequence's only new one. None: all do.
    """

    tails: Tails
    tail_tokens: Tensor | None
    places: Tensor
    chunks: list[Chunk] = field(default_factory=list)
    stored_chunks: list[Chunk] = field(default_factory=list)
    singles: SingleTokens | None = None
    shared: list[list[Shared]] = field(default_factory=list)
    reads: Tensor | None = None
    last: "Layout | None" = None


_ACTIVE: ContextVar[Layout] = ContextVar("agentrl_cached_layout")


@contextmanager
def use_layout(layout: Layout) -> Iterator[None]:
    """Lay out the forward in this block: models do not all hand unknown arguments on to their attention."""
    token = _ACTIVE.set(layout)
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def active_layout() -> Layout:
    """Return the layout of the forward under way."""
    return _ACTIVE.get()


def cached_attention(
    module: nn.Module,
    query_BHND: Tensor,
    key_BKND: Tensor,
    value_BKND: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, None]:
    """Store the new keys and values and return each new token's attention output, (1, N, H, D)."""
    refuse_unsupported(options)
    layout, layer = active_layout(), int(module.layer_idx)  # type: ignore[arg-type]
    scale = query_BHND.shape[-1] ** -0.5 if scaling is None else scaling
    store(layout, layer, key_BKND[0].transpose(0, 1), value_BKND[0].transpose(0, 1))
    query_NKGD = query_BHND[0].transpose(0, 1).unflatten(1, (key_BKND.shape[1], -1))
    out_NKGD = look_back(layout, layer, query_NKGD, scale)
    return out_NKGD.flatten(1, 2).unsqueeze(0), None


def refuse_unsupported(options: dict[str, Any]) -> None:
    """Raise a UsageError if a model wants a kind of attention that is not computed here."""
    for name in ("sliding_window", "softcap", "s_aux", "position_bias"):
        if options.get(name) is not None:
            raise UsageError(
                f"the torch engine cannot run this model: its attention uses {name!r}; "
                "choose another engine or another model"
            )


def store(layout: Layout, layer: int, key_NKD: Tensor, value_NKD: Tensor) -> None:
    """Keep the keys and values of all new tokens."""
    tails = layout.tails
    for new_NKD, kept in ((key_NKD, tails.keys), (value_NKD, tails.values)):
        if layout.tail_tokens is not None:
            new_NKD = new_NKD.index_select(0, layout.tail_tokens)
        kept[layer].flatten(0, 2).index_copy_(0, layout.places, new_NKD.flatten(0, 1))
    for chunk in layout.stored_chunks:
        new = slice(chunk.kept, chunk.kept + chunk.end - chunk.begin)
        chunk.keys[layer][0, :, new] = key_NKD[chunk.begin : chunk.end].transpose(0, 1)
        chunk.values[layer][0, :, new] = value_NKD[chunk.begin : chunk.end].transpose(0, 1)


def look_back(layout: Layout, layer: int, query_NKGD: Tensor, scale: float) -> Tensor:
    """Return each token's attention output, (N, K, G, D), over what is stored."""
    out_NKGD, lse_NKG = _own_part(layout, layer, query_NKGD, scale)
    if layout.shared:
        _add_shared(layout.shared, layer, query_NKGD, out_NKGD, lse_NKG, scale)
    return out_NKGD


def _own_part(layout: Layout, layer: int, query_NKGD: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Attend to the sequences' own tokens: (N, K, G, D) and the log-sum-exp (N, K, G)."""
    singles, tails = layout.singles, layout.tails
    out_NKGD = query_NKGD.new_empty((*query_NKGD.shape[:3], tails.spec.value_size))
    lse_NKG = query_NKGD.new_empty(query_NKGD.shape[:3], dtype=sum_dtype(query_NKGD.dtype))
    if singles is not None:
        out_RKGD, lse_RKG = _attend_singles(singles, tails, layer, query_NKGD, scale)
        out_NKGD.index_copy_(0, singles.token_R, out_RKGD)
        lse_NKG.index_copy_(0, singles.token_R, lse_RKG)
    for chunk in layout.chunks:
        _attend_chunk(chunk, layer, query_NKGD, out_NKGD, lse_NKG, scale)
    return out_NKGD, lse_NKG


def _attend_singles(
    singles: SingleTokens, tails: Tails, layer: int, query_NKGD: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Attend to the tails for the rows with one new token, in the order of `singles.token_R`."""
    query_SKGD = query_NKGD.index_select(0, singles.row_of_slot_S)
    parts, first = [], 0
    for block in singles.blocks:
        key_BKTD = tails.keys[layer][block.slots, :, : block.longest]
        value_BKTD = tails.values[layer][block.slots, :, : block.longest]
        query_BKGD = query_SKGD[first : first + len(key_BKTD)]
        parts.append(attend(query_BKGD, key_BKTD, value_BKTD, scale, bias=block.bias_B11T))
        first += len(key_BKTD)
    out_SKGD, lse_SKG = parts[0] if len(parts) == 1 else map(torch.cat, zip(*parts, strict=True))
    return out_SKGD.index_select(0, singles.slot_R), lse_SKG.index_select(0, singles.slot_R)


def _attend_chunk(
    chunk: Chunk, layer: int, query_NKGD: Tensor, out_NKGD: Tensor, lse_NKG: Tensor, scale: float
) -> None:
    """Attend to the kept tokens without a mask and to the new ones causally; fill N[begin:end]."""
    rows, kept = slice(chunk.begin, chunk.end), chunk.kept
    query_GKQD = query_NKGD[rows].permute(2, 1, 0, 3)
    # The query heads that share a key head are a batch that reads the same keys: nothing is copied.
    groups, total = query_GKQD.shape[0], kept + query_GKQD.shape[2]
    key_GKLD = chunk.keys[layer][:, :, :total].expand(groups, -1, -1, -1)
    value_GKLD = chunk.values[layer][:, :, :total].expand(groups, -1, -1, -1)
    out_GKQD, lse_GKQ = attend(query_GKQD, key_GKLD[:, :, kept:], value_GKLD[:, :, kept:], scale, causal=True)
    if kept:
        more_GKQD, more_GKQ = attend(query_GKQD, key_GKLD[:, :, :kept], value_GKLD[:, :, :kept], scale)
        merge(out_GKQD, lse_GKQ, more_GKQD, more_GKQ)
    out_NKGD[rows] = out_GKQD.permute(2, 1, 0, 3)
    lse_NKG[rows] = lse_GKQ.permute(2, 1, 0)


def _add_shared(
    runs: list[list[Shared]],
    layer: int,
    query_NKGD: Tensor,
    out_NKGD: Tensor,
    lse_NKG: Tensor,
    scale: float,
) -> None:
    """Attend to each prefix for all who follow it, as one batch of queries, and merge run by run."""
    query_BKNGD = query_NKGD.transpose(0, 1).contiguous().unsqueeze(0)
    groups = query_NKGD.shape[2]
    for run in runs:
        parts = [
            attend(
                query_BKNGD[:, :, part.begin : part.end].flatten(2, 3),
                part.keys[layer],
                part.values[layer],
                scale,
            )
            for part in run
        ]
        out_BKQD, lse_BKQ = (torch.cat(pieces, 2) for pieces in zip(*parts, strict=True))
        out_QKGD = out_BKQD[0].unflatten(1, (-1, groups)).transpose(0, 1)
        lse_QKG = lse_BKQ[0].unflatten(1, (-1, groups)).transpose(0, 1)
        rows = slice(run[0].begin, run[-1].end)
        merge(out_NKGD[rows], lse_NKG[rows], out_QKGD, lse_QKG)


AttentionInterface.register(NAME, cached_attention)
