"""LoRA: trains a low-rank adapter on a frozen model, with the library peft.

To the weight W of a layer the adapter adds a difference, W + (alpha / rank) B A, where B begins at zero and
only A and B are trained (Hu et al. 2021, arXiv:2106.09685, section 4.1). Without its adapter the model is
the one that the run began with, so the reference needs no second copy. Engines get the sum under the model's
own names, so that any engine can load it; W itself is never written to, or rounding would wear it away.

Where ranks split the model, its adapter is split as the layers are that it is on.

There is no dropout: it would train another distribution than the one that was sampled.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from agentrl.errors import UsageError
from agentrl.extras import require
from agentrl.interfaces import PluginConfig
from agentrl.options import suggestion
from agentrl_torch import checkpoint

# What peft calls an adapter that nobody named; then it is saved without a folder of its own.
NAME = "default"


class LoRAConfig(PluginConfig):
    """Options of LoRA.

    Attributes:
        rank: of the adapter; null trains all weights.
        alpha: the adapter is multiplied by alpha / rank, so that one learning rate is right for all ranks.
        targets: the linear layers that get one, by name, such as q_proj; "all-linear" are all but the one
            that projects to the vocabulary.
    """

    rank: int | None = Field(default=None, ge=1)
    alpha: int = Field(default=32, ge=1)
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"

    def check(self) -> None:
        """Raise UsageError if there are options of an adapter without a rank, or peft is not installed."""
        if self.rank is None:
            if self != LoRAConfig():
                raise UsageError(
                    "trainer.lora has options, but without trainer.lora.rank all weights are trained; set "
                    "the rank, or leave the options out"
                )
        else:
            require("peft", "trainer.lora", "agentrl-platform[peft]")


class Adapter:
    """A model's adapter: what is trained of it."""

    def __init__(self, model: PreTrainedModel, config: LoRAConfig, seed: int, base: str) -> None:
        """Freeze `model`, which was loaded from `base`, and put a new adapter on it, in place.

        Raises:
            UsageError: the model has no such layers, or there is no peft that works.
        """
        config.check()
        peft = _library()
        if config.targets != "all-linear":
            _check_targets(model, config.targets)
        wanted = peft.LoraConfig(
            task_type="CAUSAL_LM",
            r=config.rank,
            lora_alpha=config.alpha,
            target_modules=config.targets if config.targets == "all-linear" else list(config.targets),
        )
        # A begins at random, made on the CPU; nobody else's random numbers change.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self._peft_model = peft.get_peft_model(model, wanted, NAME)
        self.model = model
        self._base = base

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Be the model without its adapter, for the time being."""
        with self._peft_model.disable_adapter():
            # FSDP2 asks but once, in the first pass of all, what is trained.
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_(".lora_" in name)
            yield

    def weights(self) -> "MergedWeights":
        """Return the weights for an engine."""
        return MergedWeights(self.model, self._peft_model, self._base)

    def save(self, folder: Path, *, write: bool) -> None:
        """Write the adapter alone, as peft loads it, if this is the rank to `write`."""
        tensors = _together(self._peft_model)
        if write:
            # Whether embeddings have to be saved peft would ask the model hub.
            self._peft_model.save_pretrained(str(folder), state_dict=tensors, save_embedding_layers=False)


class MergedWeights(Mapping[str, Tensor]):
    """The weights of a model with its adapter merged in, as the model without one would have them.

    An engine can have the parts, too; see `agentrl.interfaces.AdaptedWeights`. A merged tensor is made when
    it is asked for, in the type of the frozen one; tied weights are there once. Where they are split over
    ranks, all have to ask for the same in the same order.
    """

    def __init__(self, model: PreTrainedModel, peft_model: Any, base: str) -> None:
        """Take a model, the same with peft around it, and what it was loaded from."""
        self.base = base
        self._peft_model = peft_model
        state = checkpoint.unique_state(model)
        self._frozen = {_own(name): state[name] for name in state if ".lora_" not in name}
        self._adapted = {f"{name}.weight": layer for name, layer in _adapted(model).items()}

    @torch.no_grad()
    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor."""
        weight = self._frozen[name]
        if name in self._adapted:
            difference = self._adapted[name].get_delta_weight(NAME)
            weight = (weight.to(difference.dtype) + difference).to(weight.dtype)
        return checkpoint.whole(weight)

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self._frozen)

    def __len__(self) -> int:
        """Return how many tensors there are."""
        return len(self._frozen)

    def frozen(self) -> "MergedWeights":
        """Return the weights of the model without its adapter."""
        bare = copy(self)
        bare._adapted = {}
        return bare

    def adapter(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return peft's config, JSON-safe, and the adapter's tensors by peft's names."""
        peft = _library()
        tensors = peft.get_peft_model_state_dict(
            self._peft_model, _together(self._peft_model), adapter_name=NAME, save_embedding_layers=False
        )
        config = self._peft_model.peft_config[NAME].to_dict()
        plain = {name: sorted(value) if isinstance(value, set) else value for name, value in config.items()}
        return plain, tensors


def _library() -> Any:
    """Import peft, which takes seconds, or say why it cannot be."""
    try:
        import peft
    except ImportError as error:
        raise UsageError(
            f"trainer.lora needs the package peft, which cannot be imported ({error}); install it again: "
            "pip install 'agentrl-platform[peft]'"
        ) from error
    return peft


def _together(peft_model: Any) -> dict[str, Tensor]:
    """Return the adapter's tensors, put together from all ranks, by the names that they have in the model."""
    state = peft_model.state_dict()
    return {name: checkpoint.whole(tensor) for name, tensor in state.items() if ".lora_" in name}


def _adapted(model: nn.Module) -> dict[str, Any]:
    """Return the layers that have an adapter, by their names."""
    layer = _library().tuners.lora.LoraLayer
    return {name: module for name, module in model.named_modules() if isinstance(module, layer)}


def _own(name: str) -> str:
    """Return what a weight was called before peft put a layer around it."""
    return name.replace(".base_layer.", ".")


def _check_targets(model: PreTrainedModel, targets: tuple[str, ...]) -> None:
    """Raise UsageError unless `targets` are linear layers with weights of their own."""
    if not targets:
        raise UsageError("trainer.lora.targets names no layer; leave it out for all linear layers")
    layers = {
        name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)
    }
    tied = model.get_input_embeddings().weight
    for target in targets:
        found = [layer for name, layer in layers.items() if f".{name}".endswith(f".{target}")]
        if not found:
            names = {name.rpartition(".")[2] for name in layers}
            raise UsageError(
                f"trainer.lora.targets: the model has no linear layer {target!r}; {suggestion(target, names)}"
            )
        if any(layer.weight is tied for layer in found):
            raise UsageError(
                f"trainer.lora.targets: the weights of {target!r} are also those of the embeddings, so it "
                "can have no adapter of its own; leave it out"
            )
