"""A shorter way through the commonest decoder: the same products, without what surrounds them.

A small model spends most of a forward of few tokens between its operations: in calls of modules, in the
building of masks, in outputs made for every purpose. `shorten` gives Llama, Qwen2 and Qwen3, one architecture
and the models that most train on one machine, a forward of their own. It joins the products that read
the same input, turns queries and keys together, and computes of the last layer only what is read. `fitting`
compares its logits with the model's own before it is used; all other models, and any of these that differ,
keep their own forward.

Joined weights are stored one after another, and the model's own parameters become views of that storage:
names and shapes stay, and who loads new weights into them loads them here as well.

Shape letters: N new tokens, R of them that are read, B batch, 1; O output features, H query heads,
K key-value heads, J heads of several kinds, D head size, G = H / K, W model width, V vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from agentrl_torch.cached_attention import Layout, active_layout, look_back, store
from agentrl_torch.kernels import dense

_FAMILIES = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")


# Not in inference mode: nobody could write to the joined weights outside of it.
@torch.inference_mode(mode=False)
@torch.no_grad()
def shorten(model: PreTrainedModel) -> bool:
    """Give `model` the short forward, if it is of a family that it is for; return whether it is."""
    if type(model).__name__ not in _FAMILIES:
        return False
    decoder: Any = model.get_decoder()
    layers = [_Layer(layer, model.config.rms_norm_eps) for layer in decoder.layers]
    model.forward = _Decoder(model, layers).forward
    return True


def restore(model: PreTrainedModel) -> None:
    """Give `model` its own forward back."""
    vars(model).pop("forward", None)


class _Decoder:
    """All layers, and what is before and behind them."""

    def __init__(self, model: PreTrainedModel, layers: list["_Layer"]) -> None:
        decoder: Any = model.get_decoder()
        self._layers = layers
        self._embed, self._norm, self._rotary = decoder.embed_tokens, decoder.norm, decoder.rotary_emb
        self._head: Any = model.get_output_embeddings()

    def forward(self, input_ids: Tensor, position_ids: Tensor, **options: Any) -> CausalLMOutput:
        """Return the logits of the tokens that are read, (B, R, V); the layout says which."""
        layout = active_layout()
        hidden_BNW = self._embed(input_ids)
        turn = _signed(*self._rotary(hidden_BNW, position_ids))
        hidden_NW = hidden_BNW[0]
        for index, layer in enumerate(self._layers):
            is_last = index == len(self._layers) - 1
            hidden_NW = layer.run(index, hidden_NW, turn, layout, layout.last if is_last else None)
        hidden_RW = _normed(hidden_NW, self._norm.weight, self._norm.variance_epsilon)
        return CausalLMOutput(logits=dense(hidden_RW, self._head.weight, self._head.bias).unsqueeze(0))


class _Layer:
    """One layer, with its products joined."""

    def __init__(self, layer: Any, epsilon: float) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._epsilon = epsilon
        self._head_size, self._scale = attention.head_dim, attention.scaling
        self._kv_heads = attention.k_proj.out_features // attention.head_dim
        self._heads_in = _join(attention.q_proj, attention.k_proj, attention.v_proj)
        self._heads_out = attention.o_proj
        self._head_norms = (attention.q_norm, attention.k_norm) if hasattr(attention, "q_norm") else None
        self._gate_up = _join(mlp.gate_proj, mlp.up_proj)
        self._down, self._activate = mlp.down_proj, mlp.act_fn
        self._norms = layer.input_layernorm, layer.post_attention_layernorm

    def run(
        self, index: int, hidden_NW: Tensor, turn: tuple[Tensor, Tensor], layout: Layout, last: Layout | None
    ) -> Tensor:
        """Store keys and values, and return what goes on: (N, W), or (R, W) if `last` says what is read."""
        normed_NW = _normed(hidden_NW, self._norms[0].weight, self._epsilon)
        heads_NJD = dense(normed_NW, *self._heads_in).unflatten(1, (-1, self._head_size))
        turned_NJD, value_NKD = heads_NJD[:, : -self._kv_heads], heads_NJD[:, -self._kv_heads :]
        turned_NJD = _turned(self._normed_heads(turned_NJD), *turn)
        query_NHD, key_NKD = turned_NJD[:, : -self._kv_heads], turned_NJD[:, -self._kv_heads :]
        store(layout, index, key_NKD, value_NKD)
        if last is not None:
            layout, query_NHD, hidden_NW = last, query_NHD[last.reads], hidden_NW[last.reads]
        query_NKGD = query_NHD.unflatten(1, (self._kv_heads, -1))
        attended_NKGD = look_back(layout, index, query_NKGD, self._scale)
        hidden_NW = hidden_NW + dense(attended_NKGD.flatten(1), self._heads_out.weight, self._heads_out.bias)
        normed_NW = _normed(hidden_NW, self._norms[1].weight, self._epsilon)
        gate_NO, up_NO = dense(normed_NW, *self._gate_up).chunk(2, dim=-1)
        return hidden_NW.add_(dense(self._activate(gate_NO).mul_(up_NO), self._down.weight, self._down.bias))

    def _normed_heads(self, heads_NJD: Tensor) -> Tensor:
        if self._head_norms is None:
            return heads_NJD
        of_query, of_key = self._head_norms
        query_NHD, key_NKD = heads_NJD[:, : -self._kv_heads], heads_NJD[:, -self._kv_heads :]
        normed_NHD = _normed(query_NHD, of_query.weight, self._epsilon)
        return torch.cat([normed_NHD, _normed(key_NKD, of_key.weight, self._epsilon)], 1)


def _join(*parts: nn.Linear) -> tuple[Tensor, Tensor | None]:
    """Return one weight and bias for all `parts`, whose own parameters become views of them."""
    sizes = [part.out_features for part in parts]
    joined: list[Tensor | None] = []
    for name in ("weight", "bias"):
        own = [getattr(part, name) for part in parts]
        whole = None if any(each is None for each in own) else torch.cat(own)
        joined.append(whole)
        for part, piece in zip(parts, whole.split(sizes) if whole is not None else (), strict=False):
            setattr(part, name, nn.Parameter(piece, requires_grad=False))
    return joined[0], joined[1]  # type: ignore[return-value]


def _normed(hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return F.rms_norm(hidden, weight.shape, weight, epsilon)


def _signed(cos_BND: Tensor, sin_BND: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosines and sines (N, 1, D) such that turned = heads * cos + swapped halves * sin."""
    first, second = sin_BND[0].chunk(2, dim=-1)
    return cos_BND[0].unsqueeze(1), torch.cat([-first, second], -1).unsqueeze(1)


def _turned(heads_NJD: Tensor, cos_N1D: Tensor, sin_N1D: Tensor) -> Tensor:
    half = heads_NJD.shape[-1] // 2
    return torch.addcmul(heads_NJD * cos_N1D, heads_NJD.roll(half, -1), sin_N1D)
