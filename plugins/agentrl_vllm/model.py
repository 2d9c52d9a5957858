"""What is to be known of a model before vLLM has loaded it: tokenizer, context, ends of turns, parameters."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from agentrl.errors import AgentRLError, UsageError, first_line
from agentrl.interfaces import Weights
from agentrl.weights import check_weights

# A forward of a model with fewer parameters is too little work for vLLM to share between threads: on two busy
# cores a model of a million parameters was thirty times slower with two threads than with one.
_FEW_PARAMETERS = 20_000_000


@dataclass(frozen=True, slots=True)
class Model:
    """A model as its directory describes it.

    Attributes:
        tokenizer: of transformers, with a chat template.
        context_length: tokens; some models know no limit of their own, then it is the tokenizer's.
        vocabulary: how many ids there are.
        end_ids: that end a turn.
        shapes: of all tensors that its `state_dict` has, by name.
        names: those of each parameter; tied ones have several.
    """

    tokenizer: Any
    context_length: int
    vocabulary: int
    end_ids: tuple[int, ...]
    shapes: dict[str, torch.Size]
    names: list[list[str]]

    @property
    def is_small(self) -> bool:
        """Return whether one thread computes it faster than several."""
        return self.parameters < _FEW_PARAMETERS

    @property
    def parameters(self) -> int:
        """Return how many numbers its parameters are."""
        return sum(self.shapes[names[0]].numel() for names in self.names)

    def checked(self, weights: Weights) -> Weights:
        """Return each parameter under the first of its names, if `weights` are those of this model.

        A tensor is made when it is asked for, as `weights` makes it: all of a model may not fit at once.

        Raises:
            AgentRLError: names or shapes are not the model's.
        """
        given = {name: tensor.shape for name, tensor in weights.items()}
        missing = [names[0] for names in self.names if not any(name in given for name in names)]
        check_weights(given, self.shapes, missing)
        return Renamed(weights, {next(n for n in names if n in given): names[0] for names in self.names})


class Renamed:
    """Weights of which each tensor has another name; see `agentrl.interfaces.Weights`."""

    def __init__(self, weights: Weights, names: Mapping[str, str]) -> None:
        """Take the weights, and by the name of each tensor that is wanted its new one."""
        self._weights, self._names = weights, names

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the new names, and the tensors."""
        for name, tensor in self._weights.items():
            if name in self._names:
                yield self._names[name], tensor.detach()


def describe(path: Path | str) -> Model:
    """Read what there is to know, without loading a weight.

    Raises:
        UsageError: there is no model that transformers knows at `path`, or no chat template.
    """
    try:
        config = AutoConfig.from_pretrained(path)
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"transformers cannot load the model {str(path)!r}: {first_line(error)}") from error
    if not tokenizer.chat_template:
        raise UsageError(
            f"the tokenizer of {str(path)!r} has no chat template; choose an instruction-tuned model, "
            "or put a chat_template.jinja into its directory"
        )
    text = config.get_text_config()
    context = int(getattr(text, "max_position_embeddings", None) or tokenizer.model_max_length)
    vocabulary = int(text.vocab_size)
    # vLLM refuses to wait for a token that a model cannot sample; some tokenizers have more than their model.
    ends = tuple(end for end in _end_ids(path, config, tokenizer.eos_token_id) if end < vocabulary)
    return Model(tokenizer, context, vocabulary, ends, *parameters(config))


def parameters(config: Any) -> tuple[dict[str, torch.Size], list[list[str]]]:
    """Return the shapes of a model's tensors and the names of its parameters, from an empty shell of it."""
    with torch.device("meta"):
        shell = AutoModelForCausalLM.from_config(config)
    tensors = shell.state_dict(keep_vars=True)
    owners: dict[int, list[str]] = {id(parameter): [] for parameter in shell.parameters()}
    for name, tensor in tensors.items():
        if id(tensor) in owners:
            owners[id(tensor)].append(name)
    return {name: tensor.shape for name, tensor in tensors.items()}, list(owners.values())


def check_adapter(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], model: Model, largest_rank: int
) -> None:
    """Compare an adapter, as peft saves it, with what vLLM was started for.

    Raises:
        AgentRLError: its rank is too large, or it is on layers that the model does not have.
    """
    if config["r"] > largest_rank:
        raise AgentRLError(
            f"the adapter's rank is {config['r']}, but the engine takes {largest_rank} at most; "
            f"set engine.lora_rank={config['r']}"
        )
    strange = [name for name, tensor in tensors.items() if not _fits(name, tensor, model)]
    if strange:
        raise AgentRLError(
            f"the adapter is not for the engine's model: {len(strange)} tensors fit no layer of it "
            f"(such as {strange[0]}); give both the same --model"
        )


def _fits(name: str, tensor: Tensor, model: Model) -> bool:
    """Return whether a tensor, A or B of a layer, reads what the layer reads or makes what it makes."""
    layer, _, kind = name.removeprefix("base_model.model.").rpartition(".lora_")
    shape = model.shapes.get(f"{layer}.weight")
    return shape is not None and tensor.shape[1 if kind == "A.weight" else 0] in shape


def _end_ids(path: Path | str, config: Any, tokenizer_end: int | None) -> tuple[int, ...]:
    """Return the ids that end a turn: the tokenizer's own and those of the model's generation config."""
    try:
        ends = GenerationConfig.from_pretrained(path).eos_token_id
    except OSError:  # it has none
        ends = GenerationConfig.from_model_config(config).eos_token_id
    found = {ends} if isinstance(ends, int) else set(ends or ())
    return tuple(sorted(found if tokenizer_end is None else found | {tokenizer_end}))


def check_prompt(token_ids: Sequence[int], wanted: int, vocabulary: int, context_length: int) -> None:
    """Refuse what cannot be continued.

    Raises:
        UsageError: there is nothing to continue, an id that the model does not have, or no room.
    """
    if not token_ids or wanted < 1:
        raise UsageError("the engine was asked to continue no tokens, or by no tokens")
    if not 0 <= min(token_ids) <= max(token_ids) < vocabulary:
        raise UsageError(
            f"the prompt has token {max(token_ids)}, but the model's vocabulary ends at {vocabulary - 1}; "
            "use the tokenizer that belongs to the model"
        )
    if len(token_ids) + wanted > context_length:
        raise UsageError(
            f"{len(token_ids)} tokens and up to {wanted} more do not fit into the engine's context of "
            f"{context_length}; ask for fewer"
        )
