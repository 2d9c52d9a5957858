"""What a model is made of, from its config alone: an empty shell of it is built, and no weight is loaded."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from agentrl.footprint import unknown_model
from agentrl_torch.lora import LoRAConfig

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sizes:
    """The numbers that memory depends on.

    Attributes:
        shapes: of all parameters, tied ones once.
        head: how many parameters only the projection to the vocabulary has; 0 where it is tied.
        layer: parameters of the largest layer; in_layers: of all.
        dense: parameters of all that is multiplied with: dense layers, and the projection to the vocabulary.
        adaptable: name, inputs and outputs of the dense layers that can get an adapter.
        width: of the residual stream; inner: of the MLP; query, keys: of all heads together.
        heads, layers, vocabulary, context: how many there are.
    """

    shapes: tuple[Shape, ...]
    head: int
    layer: int
    in_layers: int
    dense: int
    adaptable: tuple[tuple[str, int, int], ...]
    width: int
    inner: int
    query: int
    keys: int
    heads: int
    layers: int
    vocabulary: int
    context: int

    @property
    def parameters(self) -> int:
        """Return how many there are."""
        return count(self.shapes)

    def adapter(self, lora: LoRAConfig) -> list[Shape]:
        """Return the shapes of what LoRA trains."""
        rank = lora.rank or 0
        everything = lora.targets == "all-linear"
        wanted = [
            (inputs, outputs)
            for name, inputs, outputs in self.adaptable
            if everything or any(f".{name}".endswith(f".{target}") for target in lora.targets)
        ]
        return [shape for inputs, outputs in wanted for shape in ((rank, inputs), (outputs, rank))]


def count(shapes: Iterable[Shape], ranks: int = 1) -> int:
    """Return the numbers in tensors of these shapes; with `ranks`, those of the rank that has most.

    FSDP2 cuts each tensor along its first dimension.
    """
    return sum(-(-shape[0] // ranks) * math.prod(shape[1:]) if shape else 1 for shape in shapes)


def measure(model: Path | str) -> Sizes:
    """Return the sizes of the model in a directory or of that name.

    Raises:
        UsageError: its config cannot be had, or is of no causal language model that transformers knows.
    """
    shell = _shell(model)
    config: Any = shell.config.get_text_config()
    layers = list(getattr(shell.get_decoder(), "layers", ()))
    inside = [_parameters(layer) for layer in layers]
    heads = int(config.num_attention_heads)
    size = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    key_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    projection, embedding = shell.get_output_embeddings(), shell.get_input_embeddings()
    own_head = projection is not None and projection.weight is not embedding.weight
    return Sizes(
        shapes=tuple(tuple(parameter.shape) for parameter in shell.parameters()),
        head=_parameters(projection) if own_head else 0,
        layer=max(inside, default=0),
        in_layers=sum(inside),
        dense=sum(each.weight.numel() for each in shell.modules() if isinstance(each, nn.Linear | Conv1D)),
        adaptable=tuple(_adaptable(shell, projection)),
        width=int(config.hidden_size),
        inner=int(getattr(config, "intermediate_size", None) or 4 * config.hidden_size),
        query=heads * size,
        keys=key_heads * size,
        heads=heads,
        layers=int(config.num_hidden_layers),
        vocabulary=int(config.vocab_size),
        context=int(getattr(config, "max_position_embeddings", None) or 2**17),
    )


def _shell(model: Path | str) -> Any:
    try:
        config = AutoConfig.from_pretrained(model)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError, KeyError) as error:
        raise unknown_model(model, error) from error


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _adaptable(shell: nn.Module, projection: Any) -> Iterable[tuple[str, int, int]]:
    for name, module in shell.named_modules():
        if isinstance(module, nn.Linear) and module is not projection:
            yield name, module.in_features, module.out_features
        elif isinstance(module, Conv1D):
            yield name, module.nx, module.nf


def value_head(sizes: Sizes) -> Sequence[Shape]:
    """Return the shapes of a critic's head."""
    return [(1, sizes.width), (1,)]
