"""Puts new weights into a model, all or nothing."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from agentrl.interfaces import Weights
from agentrl.weights import check_weights


def load_into(model: PreTrainedModel, weights: Weights) -> None:
    """Copy `weights` into `model`; of tied parameters one name is enough.

    Raises:
        AgentRLError: names or shapes are not the model's; then nothing has been copied.
    """
    own, given = model.state_dict(), {name: tensor.shape for name, tensor in weights.items()}
    reached = {own[name].data_ptr() for name in given if name in own}
    parameters = model.named_parameters()
    missing = [name for name, tensor in parameters if name not in given and tensor.data_ptr() not in reached]
    check_weights(given, {name: tensor.shape for name, tensor in own.items()}, missing)
    _copy(own, weights)


@torch.no_grad()
def _copy(own: dict[str, Tensor], weights: Weights) -> None:
    for name, tensor in weights.items():
        own[name].copy_(tensor)
