"""Puts new weights into a model, all or nothing."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from agentrl.errors import AgentRLError
from agentrl.interfaces import Weights


def load_into(model: PreTrainedModel, weights: Weights) -> None:
    """Copy `weights` into `model`; of tied parameters one name is enough.

    Raises:
        AgentRLError: names or shapes are not the model's; then nothing has been copied.
    """
    own, given = model.state_dict(), {name: tensor.shape for name, tensor in weights.items()}
    reached = {own[name].data_ptr() for name in given if name in own}
    parameters = model.named_parameters()
    missing = [name for name, tensor in parameters if name not in given and tensor.data_ptr() not in reached]
    unknown = [name for name in given if name not in own]
    misshapen = [name for name in given if name in own and given[name] != own[name].shape]
    problems = {"missing": missing, "unknown": unknown, "of another shape": misshapen}
    found = [f"{len(names)} {what} (such as {names[0]})" for what, names in problems.items() if names]
    if found:
        raise AgentRLError(
            f"the trainer's weights are not those of the engine's model: {', '.join(found)}; "
            "give both the same --model"
        )
    _copy(own, weights)


@torch.no_grad()
def _copy(own: dict[str, Tensor], weights: Weights) -> None:
    for name, tensor in weights.items():
        own[name].copy_(tensor)
