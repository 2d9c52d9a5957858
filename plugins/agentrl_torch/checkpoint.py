"""What a trainer writes to go on exactly: weights, the optimizers' state, and how many updates were made.

A checkpoint is the same whatever number of ranks has written it: tensors that are split over ranks are put
together on the way out, and split again on the way in.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from agentrl.errors import AgentRLError, UsageError
from agentrl.files import error_number

WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.pt"
STATE = "trainer.json"


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor with all that the other ranks have of it; it may have been whole all along."""
    complete: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return complete


def like(tensor: Tensor, own: Tensor) -> Tensor:
    """Return what of a whole tensor this rank has, as it has `own`."""
    if not hasattr(own, "device_mesh"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    placed: Any = own
    there = tensor.to(placed.device)
    return distribute_tensor(there, placed.device_mesh, placed.placements, src_data_rank=None)


def unique_state(model: torch.nn.Module) -> dict[str, Tensor]:
    """Return the model's `state_dict` without a second name for the same tensor (tied weights)."""
    first = {name for name, _ in model.named_parameters()}
    again = {name for name, _ in model.named_parameters(remove_duplicate=False)} - first
    return {name: tensor for name, tensor in model.state_dict().items() if name not in again}


def learnt_state(model: torch.nn.Module) -> dict[str, Tensor]:
    """Return what of `unique_state` is not frozen; the rest is as the run's model has it."""
    parameters = model.named_parameters(remove_duplicate=False)
    frozen = {name for name, parameter in parameters if not parameter.requires_grad}
    return {name: tensor for name, tensor in unique_state(model).items() if name not in frozen}


def write(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, *, write: bool) -> None:
    """Write what a model has learnt and its optimizer into `folder`, which is made if need be.

    Ranks that are not to `write` have to take part all the same.
    """
    state = learnt_state(model)
    tensors = {name: _kept(tensor, write) for name, tensor in state.items()}
    moments = optimizer.state_dict()
    moments["state"] = {
        index: {name: _kept(value, write) for name, value in of_parameter.items()}
        for index, of_parameter in moments["state"].items()
    }
    if write:
        folder.mkdir(parents=True, exist_ok=True)
        with as_os_error(), (folder / OPTIMIZER).open("wb") as file:
            save_file(tensors, folder / WEIGHTS)
            torch.save(moments, file)


@contextmanager
def as_os_error() -> Iterator[None]:
    """Raise as an `OSError` what libraries say in their own ways of a file that cannot be written."""
    try:
        yield
    except (OSError, AgentRLError):
        raise
    except Exception as error:  # what tokenizers raise is nothing narrower
        cause = error.__context__
        if isinstance(error, RuntimeError) and isinstance(cause, OSError):
            raise cause from error  # torch's own trouble with a file that has had one
        if number := error_number(error):
            raise OSError(number, os.strerror(number)) from error
        raise


def _kept(value: Any, keep: bool) -> Any:
    """Return a tensor as it is written, or an empty one where it is not to be kept."""
    if not isinstance(value, Tensor):
        return value
    complete = whole(value.detach())
    return complete.cpu().contiguous() if keep else torch.empty(0)


def read(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Read what `write` wrote.

    Raises:
        UsageError: a file is missing, or belongs to another model.
    """
    _check_complete(folder, WEIGHTS, OPTIMIZER)
    tensors = load_file(folder / WEIGHTS)
    own = learnt_state(model)
    wrong = [n for n in own.keys() | tensors.keys() if _shape(own, n) != _shape(tensors, n)]
    if wrong:
        raise UsageError(
            f"the checkpoint {str(folder)!r} is of another model: {min(wrong)} differs; resume with the "
            "--model and the trainer.lora that the run was started with"
        )
    model.load_state_dict({name: like(tensors[name], own[name]) for name in own}, strict=False)
    moments = torch.load(folder / OPTIMIZER, weights_only=True, mmap=True)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments["state"] = {
        index: {name: _placed(value, parameters[index]) for name, value in of_parameter.items()}
        for index, of_parameter in moments["state"].items()
    }
    optimizer.load_state_dict(moments)


def _placed(value: Any, parameter: Tensor) -> Any:
    """Return an optimizer's number about `parameter` where the parameter is, and not in a mapped file."""
    if not isinstance(value, Tensor):
        return value
    here = like(value, parameter) if value.shape == parameter.shape else value
    return value.clone() if here is value else here


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write what else the trainer knows, JSON-safe."""
    (folder / STATE).write_text(json.dumps(state))


def read_state(folder: Path) -> dict[str, Any]:
    """Read what `write_state` wrote.

    Raises:
        UsageError: it is missing.
    """
    _check_complete(folder, STATE)
    state: dict[str, Any] = json.loads((folder / STATE).read_text())
    return state


def _check_complete(folder: Path, *names: str) -> None:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise UsageError(
            f"the checkpoint {str(folder)!r} lacks {', '.join(missing)}; resume from another one"
        )


def _shape(tensors: dict[str, Any], name: str) -> torch.Size | None:
    return tensors[name].shape if name in tensors else None
