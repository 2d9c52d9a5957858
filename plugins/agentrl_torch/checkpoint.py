"""What a trainer writes to go on exactly: weights, the optimizers' state, and how many updates were made."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from agentrl.errors import UsageError

WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.pt"
STATE = "trainer.json"


def unique_state(model: torch.nn.Module) -> dict[str, Tensor]:
    """Return the model's `state_dict` without a second name for the same tensor (tied weights)."""
    seen: dict[tuple[int, torch.Size], str] = {}
    state = model.state_dict()
    for name, tensor in state.items():
        seen.setdefault((tensor.data_ptr(), tensor.shape), name)
    return {name: state[name] for name in seen.values()}


def learnt_state(model: torch.nn.Module) -> dict[str, Tensor]:
    """Return what of `unique_state` is not frozen; the rest is as the run's model has it."""
    parameters = model.named_parameters(remove_duplicate=False)
    frozen = {name for name, parameter in parameters if not parameter.requires_grad}
    return {name: tensor for name, tensor in unique_state(model).items() if name not in frozen}


def write(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write what a model has learnt and its optimizer into `folder`, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in learnt_state(model).items()}
    save_file(tensors, folder / WEIGHTS)
    torch.save(optimizer.state_dict(), folder / OPTIMIZER)


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
    model.load_state_dict(tensors, strict=False)
    optimizer.load_state_dict(torch.load(folder / OPTIMIZER, weights_only=True))


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
