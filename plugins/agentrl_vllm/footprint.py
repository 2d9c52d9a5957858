"""What vLLM takes of memory: on a GPU the share that it is given, on the CPU its weights and cache."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from agentrl.footprint import MAIN_MEMORY, Footprint, Holding, Moment, Occupant, Workload, unknown_model
from agentrl.interfaces import Resources
from agentrl_vllm.model import parameters
from agentrl_vllm.starting import choose_dtype, lora_room

CACHE = "keys and values"
AWAKE: tuple[Moment, ...] = ("playing", "handing over")


def of_engine(config: Any, model: Path | str, resources: Resources, work: Workload) -> Footprint:
    """Return the footprint of a `VLLMEngine` with this `Config`.

    Raises:
        UsageError: the model's config cannot be read.
    """
    try:
        described = AutoConfig.from_pretrained(model)
        shapes, names = parameters(described)
    except (OSError, ValueError, KeyError) as error:
        raise unknown_model(model, error) from error
    number = choose_dtype(config.dtype, resources.device).itemsize
    weights = sum(shapes[each[0]].numel() for each in names) * number
    text = described.get_text_config()
    longest = min(work.tokens, config.context_length or text.max_position_embeddings)
    token = _token(text, number)
    engines = max(1, config.engines)
    size = int(config.arguments.get("tensor_parallel_size", 1))
    adapters = _adapters(config.lora_rank, shapes, names) * number if config.lora_rank else 0
    held = weights // size + adapters
    holdings = _holdings(config, resources.device, held, token // size, longest, work)
    files = _files(weights) if config.engines else []
    occupants: tuple[Occupant, ...] = tuple(
        Occupant(
            "engine" if engines == 1 else f"engine {index}",
            "its own" if config.engines else "main",
            device,
            config.threads or resources.threads if device == MAIN_MEMORY else 1,
            (*holdings, *(files if first else ())),
        )
        for index in range(engines)
        for first, device in _devices(resources.device, index, size)
    )
    if config.engines:
        new = Holding("new weights", weights, "handing over")
        occupants = Occupant("engine, handover", "main", MAIN_MEMORY, 1, (new, *files)), *occupants
    cache = next(each.bytes for each in holdings if each.what == CACHE)
    room = cache // max(1, token // size)
    said = f"each vLLM keeps {room:,} tokens, {room // longest:,} episodes of {longest:,}; more wait"
    remedies = ("engine.gpu_memory: a smaller share", "engine.context_length: shorter episodes")
    return Footprint(occupants, remedies, (said,))


def _holdings(
    config: Any, device: str, weights: int, token: int, longest: int, work: Workload
) -> list[Holding]:
    """Return what one vLLM holds: weights and cache first."""
    one = token * longest
    if torch.device(device).type == "cpu":
        cache = int((config.kv_cache_gb or 1.0) * 2**30)
        return [Holding("weights", weights), Holding(CACHE, max(one, cache))]
    if config.kv_cache_gb is not None:
        cache = int(config.kv_cache_gb * 2**30)
    else:
        cache = int(config.gpu_memory * (work.device_memory or 0)) - weights
    # It is awake when new weights come, too. At the least it wants room for one episode, or does not start.
    awake = [
        Holding(what, size, moment)
        for moment in AWAKE
        for what, size in (("weights", weights), (CACHE, max(one, cache)))
    ]
    # It sleeps while the trainer learns, and keeps its weights in the main memory.
    return [*awake, Holding("weights, asleep", weights, "learning", MAIN_MEMORY)]


def _files(weights: int) -> list[Holding]:
    """Return the files that all vLLMs of a machine share: one stays until the last of them has the next."""
    return [
        Holding("a file of weights", weights, "afterwards", MAIN_MEMORY, shared=True),
        Holding("the file of new weights", weights, "handing over", MAIN_MEMORY, shared=True),
    ]


def _adapters(rank: int, shapes: Mapping[str, torch.Size], names: Sequence[Sequence[str]]) -> int:
    """Return how many numbers vLLM sets aside for an adapter on all layers, those of words included.

    Not all of it is shared out over GPUs; of experts that have one tensor together each has its own.
    """
    matrices = [shapes[each[0]] for each in names if len(shapes[each[0]]) > 1]
    return lora_room(rank) * sum(math.prod(shape[:-2]) * sum(shape[-2:]) for shape in matrices)


def _token(text: Any, number: int) -> int:
    """Return the bytes of a token's keys and values in all layers."""
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    return int(2 * text.num_hidden_layers * heads * size * number)


def _devices(device: str, index: int, size: int) -> list[tuple[bool, str]]:
    """Return the devices of vLLM number `index`, and of each whether it is its first."""
    if torch.device(device).type == "cpu":
        return [(True, device)]
    begin = (torch.device(device).index or 0) + index * size
    return [(number == begin, f"cuda:{number}") for number in range(begin, begin + size)]
