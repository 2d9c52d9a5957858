"""Makes a model of transformers ready for token tries, and makes sure that it computes the same there.

Shapes: N sequences, L tokens of each, B batch, always 1, T slots, R slots that are read, D model width, V
vocabulary.
"""

from types import MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from agentrl.errors import UsageError
from agentrl_torch import attention, flex, forward
from agentrl_torch.layout import lay_out
from agentrl_torch.trie import Ids, build


@torch.no_grad()
def use_trie(model: PreTrainedModel, way: str = attention.FLASH, dtype: torch.dtype | None = None) -> None:
    """Switch `model` to attention over the trie, in one of the ways of `attention`.

    `dtype` is what the matrix products will be computed in; None is the type of the weights.

    Raises:
        UsageError: it computes something else there than on single sequences: its layers see more, or less,
            of a sequence than attention shows them.
    """
    _check_layers(model)
    dtype = dtype or model.dtype
    ids_NL = _probe(model, way)
    with forward.autocast(model.device, dtype):
        expected_NLV = model(torch.from_numpy(ids_NL).long().to(model.device)).logits
        model.set_attn_implementation(way)
        _compute_last_layer_where_read(model)
        _check_logits(model, ids_NL, expected_NLV, _tolerance(dtype))


def _probe(model: PreTrainedModel, way: str) -> Ids:
    """Return sequences with a beginning in common, (N, L), and so many that `way` is taken with them."""
    shared, own, count = 4, 4, 2
    if way == attention.FLEX:
        shared, own, count = 32, 32, 2 + flex.FEWEST // 32
    vocabulary = model.config.get_text_config().vocab_size
    ids_NL = np.random.default_rng(0).integers(0, vocabulary, (count, shared + own), np.int32)
    ids_NL[:, :shared] = ids_NL[0, :shared]
    return ids_NL


def _check_logits(model: PreTrainedModel, ids_NL: Ids, expected_NLV: Tensor, tolerance: float) -> None:
    """Raise UsageError unless the logits over the trie are the expected ones."""
    trie = build(list(ids_NL))
    unread = 2  # of each sequence, so that it shows what the last layer makes of them
    reads = np.unique(np.concatenate([slots[unread:] for slots in trie.slots]))
    logits_TV = forward.project(model, forward.decode(model, trie, lay_out(trie, reads)))
    for logits_LV, slots in zip(expected_NLV, trie.slots, strict=True):
        gap = float((logits_TV[torch.from_numpy(slots)] - logits_LV)[unread:].abs().max())
        if not gap <= tolerance * max(1.0, float(logits_LV.abs().max())):
            raise UsageError(
                f"{type(model).__name__} computes something else on shared prefixes (its logits differ by "
                f"{gap:.2g}); it cannot be trained here; choose a decoder with full causal attention"
            )


def _check_layers(model: PreTrainedModel) -> None:
    """Raise UsageError if a layer does not attend to everything before a token."""
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ()) - {"full_attention"}
    if kinds:
        raise UsageError(
            f"the model has layers of the kind {', '.join(sorted(kinds))}, which training on shared prefixes "
            "cannot do; choose a model with full attention in all layers"
        )


def _tolerance(dtype: torch.dtype) -> float:
    """Return how far two ways to the same logits may be apart, as a part of the largest."""
    return 1e-2 if dtype.itemsize >= torch.float32.itemsize else 0.1


def keep_no_activations(model: PreTrainedModel) -> None:
    """Compute the activations of each layer again in the backward pass, in place of keeping them."""
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()  # transformers checkpoints in training mode only, where dropout would apply
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0


# The last layer's output is read only where logits are needed, so the rest of it need not be computed. For
# attention this is in `attention`; here it is done for the gated MLP that most families share.


def _compute_last_layer_where_read(model: PreTrainedModel) -> None:
    if (mlp := last_mlp(model)) is not None:
        mlp.reads = None
        mlp.forward = MethodType(_forward_where_read, mlp)


def last_mlp(model: PreTrainedModel) -> Any:
    """Return the last layer's MLP, if it is a plain gated one."""
    layers = getattr(model.get_decoder(), "layers", None)
    mlp = getattr(layers[-1], "mlp", None) if layers else None
    # An adapter is around a layer, and computes row by row as well.
    children = mlp.named_children() if mlp is not None else ()
    parts = {name: type(getattr(part, "base_layer", part)) for name, part in children}
    return mlp if all(parts.get(f"{x}_proj") is nn.Linear for x in ("gate", "up", "down")) else None


def _forward_where_read(mlp: Any, hidden_BTD: Tensor) -> Tensor:
    """Compute the rows that are read; the others, which nothing reads, are 0."""
    if mlp.reads is None:
        whole_BTD: Tensor = type(mlp).forward(mlp, hidden_BTD)
        return whole_BTD
    found_BRD: Tensor = type(mlp).forward(mlp, hidden_BTD.index_select(1, mlp.reads))
    return found_BRD.new_zeros(hidden_BTD.shape).index_copy(1, mlp.reads, found_BRD)
