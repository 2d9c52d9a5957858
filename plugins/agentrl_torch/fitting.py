"""Makes a loaded model attend to the engine's cache, and proves that it computes the same as before.

Any causal model of transformers that takes its attention function from `AttentionInterface` will do. One that
does not (recurrent layers, sliding windows, a cache of its own) is refused at the start, not found out by a
training run that does not learn.

Shape letters: B batch, 1; N tokens, H query heads, K key-value heads, D head size, V vocabulary.
"""

from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from agentrl.errors import UsageError
from agentrl.types import Sampling
from agentrl_torch.cached_attention import NAME, refuse_unsupported, use_layout
from agentrl_torch.kv_cache import CacheSpec
from agentrl_torch.packing import Piece, pack
from agentrl_torch.partial_attention import attend
from agentrl_torch.plain_decoder import restore, shorten
from agentrl_torch.sequences import Request
from agentrl_torch.sessions import SessionStore

_PROBE = "agentrl_probe"
_PROBE_PIECES = (7, 1, 3, 1)
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
_LOW_PRECISION_TOLERANCE = 0.1

_SEEN: ContextVar[dict[int, tuple[Tensor, Tensor]]] = ContextVar("agentrl_probe_seen")


@torch.inference_mode()
def fit(model: PreTrainedModel) -> CacheSpec:
    """Switch `model` to `cached_attention` and return what a token of it takes to store.

    Raises:
        UsageError: the model cannot be run this way.
    """
    vocabulary = model.config.get_text_config().vocab_size
    ids_BN = torch.arange(sum(_PROBE_PIECES), device=model.device).unsqueeze(0) % vocabulary
    expected_V = model(input_ids=ids_BN, use_cache=False).logits[0, -1].float()
    spec = _measure(model, ids_BN)
    model.set_attn_implementation(NAME)
    if shorten(model) and _agrees(model, spec, ids_BN, expected_V):
        return spec
    restore(model)
    if not _agrees(model, spec, ids_BN, expected_V):
        raise _refusal(model, "its logits change when its keys and values are kept by the engine")
    return spec


def _agrees(model: PreTrainedModel, spec: CacheSpec, ids_BN: Tensor, expected_V: Tensor) -> bool:
    found_V = _logits_by_pieces(model, spec, ids_BN[0].tolist())
    bound = _TOLERANCE.get(model.dtype, _LOW_PRECISION_TOLERANCE) * (1 + expected_V.abs().max())
    return bool((found_V - expected_V).abs().max() <= bound)


def _measure(model: PreTrainedModel, ids_BN: Tensor) -> CacheSpec:
    """Return the sizes of the model's keys and values, seen in a forward."""
    seen: dict[int, tuple[Tensor, Tensor]] = {}
    token = _SEEN.set(seen)
    try:
        model.set_attn_implementation(_PROBE)
        model(input_ids=ids_BN, use_cache=False)
    finally:
        _SEEN.reset(token)
    layers = int(model.config.get_text_config().num_hidden_layers)
    shapes = {(key.shape[1], key.shape[3], value.shape[3]) for key, value in seen.values()}
    if sorted(seen) != list(range(layers)) or len(shapes) != 1:
        raise _refusal(model, "not all of its layers are attention layers of one kind")
    heads, key_size, value_size = shapes.pop()
    return CacheSpec(layers, heads, key_size, value_size, seen[0][0].dtype, model.device)


def _probe_attention(
    module: nn.Module,
    query_BHND: Tensor,
    key_BKND: Tensor,
    value_BKND: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    refuse_unsupported(options)
    _SEEN.get()[int(module.layer_idx)] = (key_BKND, value_BKND)  # type: ignore[arg-type]
    groups = query_BHND.shape[1] // key_BKND.shape[1]
    key_BHND, value_BHND = (kept.repeat_interleave(groups, dim=1) for kept in (key_BKND, value_BKND))
    scale = query_BHND.shape[-1] ** -0.5 if scaling is None else scaling
    out_BHND, _ = attend(query_BHND, key_BHND, value_BHND, scale, causal=True)
    return out_BHND.transpose(1, 2), None


def _logits_by_pieces(model: PreTrainedModel, spec: CacheSpec, token_ids: list[int]) -> Tensor:
    """Return the last token's logits, (V,), of a forward in several pieces."""
    store = SessionStore(spec, min_shared=len(token_ids), budget=len(token_ids))
    session = store.open([Request(token_ids, Sampling(max_tokens=1), "probe")])[0]
    for length in _PROBE_PIECES:
        packed = pack([Piece(session, length)], store.tails, spec.device)
        with use_layout(packed.layout):
            logits_BLV = model(
                input_ids=packed.ids_BN,
                position_ids=packed.positions_BN,
                use_cache=False,
                logits_to_keep=torch.tensor([length - 1], device=spec.device),
            ).logits
        session.computed += length
    last_V: Tensor = logits_BLV[0, 0].float()
    return last_V


def _refusal(model: PreTrainedModel, reason: str) -> UsageError:
    return UsageError(
        f"the torch engine cannot run a {type(model).__name__}: {reason}; "
        "choose another engine or another model"
    )


AttentionInterface.register(_PROBE, _probe_attention)
