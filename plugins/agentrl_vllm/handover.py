"""Weights on their way to vLLMs: tensors within this process, files in shared memory for others.

Of a frozen model with an adapter the model is handed over once, and from then on the adapter alone.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from agentrl.interfaces import AdaptedWeights, Weights
from agentrl.scratch import make_folder, remove_folder
from agentrl_vllm.messages import Cargo
from agentrl_vllm.model import Model, check_adapter


class Handover:
    """Knows which frozen model the vLLMs have, and keeps the files that one which begins anew needs."""

    def __init__(self, model: Model, base: str | None, dtype: torch.dtype, *, as_files: bool) -> None:
        """Take the model, what the vLLMs have loaded it from, if that is known, and what they want it as."""
        self.model, self._dtype, self._as_files = model, dtype, as_files
        # The frozen model that the vLLMs have, if it is one, and where who begins anew gets it: None needs it
        # from nowhere.
        self._base: str | None = base
        self._base_folder: Path | None = None
        self._base_lost = False
        self._folders: list[Path] = []

    def pack(self, weights: Weights, version: int) -> tuple[Cargo, Cargo | None]:
        """Return all weights, merged: for vLLMs that have those before, and for one that has just begun.

        Earlier folders stay until `arrived`.

        Raises:
            AgentRLError: names or shapes are not the model's.
        """
        tensors = self.model.checked(weights)
        self._base = self._base_folder = None
        folder = self._new_folder(self._bytes) if self._as_files else None
        cargo = self._whole(tensors, folder, version)
        return cargo, cargo

    def pack_adapter(
        self, weights: AdaptedWeights, version: int, largest_rank: int
    ) -> tuple[Cargo, Cargo | None]:
        """Return the adapter likewise, with its model where they do not have it.

        The second is None where nobody has the frozen model any more.

        Raises:
            AgentRLError: names, shapes or rank are not what vLLM was started for.
        """
        config, tensors = weights.adapter()
        check_adapter(config, tensors, self.model, largest_rank)
        size = sum(tensor.nbytes for tensor in tensors.values())
        if weights.base == self._base and (self._base_folder is None or self._base_folder.is_dir()):
            folder = self._new_folder(size)
            write_adapter(config, tensors, folder / Cargo.ADAPTER)
            cargo = Cargo(version, folder=folder, holds=frozenset({Cargo.ADAPTER}))
            return cargo, self._with_base(cargo)
        frozen = self.model.checked(weights.frozen())
        folder = self._new_folder(size + self._bytes)
        write_adapter(config, tensors, folder / Cargo.ADAPTER)
        whole = self._whole(frozen, folder, version)
        cargo = replace(whole, holds=whole.holds | {Cargo.ADAPTER})
        self._base, self._base_lost = weights.base, not self._as_files
        self._base_folder = folder if self._as_files else None
        return cargo, cargo

    def arrived(self, *cargoes: Cargo | None) -> None:
        """Remove the folders that none of these needs, for all vLLMs have loaded."""
        needed = {cargo.folder for cargo in cargoes if cargo is not None} | {self._base_folder}
        for folder in self._folders:
            if folder not in needed:
                remove_folder(folder)
        self._folders = [folder for folder in self._folders if folder in needed]

    def close(self) -> None:
        """Remove all folders."""
        self._base_folder = None
        self.arrived()

    @property
    def _bytes(self) -> int:
        return self.model.parameters * self._dtype.itemsize

    def _new_folder(self, size: int) -> Path:
        """Return a new folder: in shared memory where there is room for so many bytes, else on the disk."""
        self._folders.append(make_folder("vllm", size))
        return self._folders[-1]

    def _whole(self, tensors: Weights, folder: Path | None, version: int) -> Cargo:
        if folder is None or not self._as_files:
            return Cargo(version, tensors, folder)
        write_model(tensors, self._dtype, folder / Cargo.MODEL)
        return Cargo(version, folder=folder, holds=frozenset({Cargo.MODEL}))

    def _with_base(self, cargo: Cargo) -> Cargo | None:
        """Return an adapter with the frozen model, which one that has just begun may not have."""
        if self._base_lost:
            return None
        if self._base_folder is None or cargo.folder is None:
            return cargo
        folder = self._new_folder(0)
        for place in (self._base_folder / Cargo.MODEL, cargo.folder / Cargo.ADAPTER):
            (folder / place.name).mkdir()
            for file in place.iterdir():
                (folder / place.name / file.name).symlink_to(file)
        return replace(cargo, folder=folder, holds=frozenset({Cargo.MODEL, Cargo.ADAPTER}))


def write_model(tensors: Weights, dtype: torch.dtype, folder: Path) -> None:
    """Write the tensors to a new folder, in the precision that the engine computes in."""
    folder.mkdir()
    ready = {name: tensor.to("cpu", dtype).contiguous() for name, tensor in tensors.items()}
    save_file(ready, folder / "model.safetensors")


def write_adapter(config: Mapping[str, Any], tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write an adapter to a new folder, as peft does."""
    folder.mkdir()
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(ready, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config))
