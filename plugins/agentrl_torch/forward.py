"""Log-probabilities of sampled tokens, from one pass over a token trie.

The model's decoder runs over the trie; the vocabulary projection, which is the largest matrix of a small
model, only over the slots after which a token was sampled, and in pieces that bound the memory it takes.

Shapes: T unique tokens, R slots whose logits are needed, U unique (slot, token) pairs, N sampled tokens,
D model width, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from agentrl_torch import adaptation
from agentrl_torch.layout import Layout
from agentrl_torch.micro_batch import MicroBatch
from agentrl_torch.trie import Trie

# How many logits are held at once: 256 MiB in float32.
LOGITS = 2**26


class Policy(nn.Module):
    """A language model as an update calls it: a whole forward pass in one call, into which ranks can hook."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Take the model."""
        super().__init__()
        self.model = model

    def forward(
        self, micro: MicroBatch, dtype: torch.dtype, project: bool = True
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return hidden states (R, D), and of each sampled token its log-probability (N,) and entropy (N,).

        Nats; the entropy is of the distribution that the token was drawn from, and carries no gradient.
        `dtype` is what the matrix products are computed in. Without `project` there are hidden states only.
        """
        hidden_RD = hidden_states(self.model, micro, dtype)
        if not project:
            return hidden_RD, None, None
        return hidden_RD, *token_logprobs(self.model, micro, hidden_RD, dtype)


def hidden_states(model: PreTrainedModel, micro: MicroBatch, dtype: torch.dtype) -> Tensor:
    """Return the last hidden states (R, D) at the slots before sampled tokens."""
    with autocast(model.device, dtype):
        return decode(model, micro.trie, micro.layout).index_select(0, micro.slots_R.to(model.device))


def token_logprobs(
    model: PreTrainedModel, micro: MicroBatch, hidden_RD: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return log-probabilities and entropies as `Policy` does, from `hidden_states`."""
    device = model.device
    with autocast(device, dtype):
        logprob_U, entropy_R = _project_all(
            model,
            hidden_RD,
            None if micro.temperature_R is None else micro.temperature_R.to(device),
            micro.row_U.to(device),
            micro.target_U.to(device),
        )
    # index_select, because the gradient of plain indexing adds up in no fixed order on several threads.
    entropy_N = entropy_R.index_select(0, row_of_token(micro).to(device))
    return logprob_U.index_select(0, micro.pair_N.to(device)), entropy_N


def row_of_token(micro: MicroBatch) -> Tensor:
    """Return for each sampled token which of the R slots comes before it, (N,)."""
    return micro.row_U.index_select(0, micro.pair_N)


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Return a context in which matrix products take `dtype`, if that is narrower than trained weights."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype.itemsize < torch.float32.itemsize)


def decode(model: PreTrainedModel, trie: Trie, layout: Layout) -> Tensor:
    """Return the last hidden states, (T, D); only the rows of `layout.reads` mean something, if given."""
    ids_BT = trie.token_ids_T.to(model.device).unsqueeze(0)
    positions_BT = trie.positions_T.to(model.device).unsqueeze(0)
    if (mlp := adaptation.last_mlp(model)) is not None:
        mlp.reads = None if layout.reads is None else layout.reads.to(model.device)
    output = model.get_decoder()(input_ids=ids_BT, position_ids=positions_BT, use_cache=False, trie=layout)
    hidden_TD: Tensor = output.last_hidden_state[0]
    return hidden_TD


def _project_all(
    model: PreTrainedModel, hidden_RD: Tensor, temperature_R: Tensor | None, row_U: Tensor, target_U: Tensor
) -> tuple[Tensor, Tensor]:
    """Project piece by piece; with more than one, logits are recomputed in the backward pass."""
    rows = max(1, LOGITS // model.config.get_text_config().vocab_size)
    if len(hidden_RD) <= rows:
        return _project(model, hidden_RD, temperature_R, row_U, target_U)
    starts = torch.arange(0, len(hidden_RD), rows, device=row_U.device)
    bounds = [*torch.searchsorted(row_U, starts).tolist(), len(row_U)]
    found = []
    for start, a, b in zip(starts.tolist(), bounds[:-1], bounds[1:], strict=True):
        here = slice(start, start + rows)
        divisors = None if temperature_R is None else temperature_R[here]
        piece = model, hidden_RD[here], divisors, row_U[a:b] - start, target_U[a:b]
        found.append(checkpoint(_project, *piece, use_reentrant=False))
    logprobs, entropies = zip(*found, strict=True)
    return torch.cat(logprobs), torch.cat(entropies)


def _project(
    model: PreTrainedModel, hidden_RD: Tensor, temperature_R: Tensor | None, row_U: Tensor, target_U: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities (U,) of tokens and the entropies (R,) of rows."""
    logits_RV = project(model, hidden_RD)
    wide = torch.promote_types(logits_RV.dtype, torch.float32)
    if temperature_R is not None:
        logits_RV = logits_RV / temperature_R.unsqueeze(1)
    logprobs_RV = torch.log_softmax(logits_RV, -1, dtype=wide)
    with torch.no_grad():
        entropy_R = -(logprobs_RV.exp() * logprobs_RV).sum(-1)
    return logprobs_RV[row_U, target_U], entropy_R


def project(model: PreTrainedModel, hidden_RD: Tensor) -> Tensor:
    """Return the logits (R, V) as the whole model would, the scaling some families do included."""
    head: Any = model.get_output_embeddings()
    config = model.config.get_text_config()
    logits_RV: Tensor = head(hidden_RD)
    if (scale := getattr(config, "logit_scale", None)) is not None:  # Cohere
        logits_RV = logits_RV * scale
    if (divisor := getattr(config, "logits_scaling", None)) is not None:  # Granite
        logits_RV = logits_RV / divisor
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:  # Gemma
        logits_RV = torch.tanh(logits_RV / cap) * cap
    return logits_RV
