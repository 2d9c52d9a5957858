"""What vLLM is started with: its arguments, and what its processes need."""

import math
from pathlib import Path
from typing import Any

import torch

from agentrl.errors import UsageError
from agentrl.interfaces import Resources
from agentrl.runtime import Program
from agentrl_vllm.messages import Setup
from agentrl_vllm.model import Model

# vLLM's attention on the CPU wants a multiple of 32. Only full blocks are kept, so small ones lose little.
_CPU_BLOCK = 32
# What vLLM sets room aside for.
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


def make_setup(config: Any, path: Path | str, model: Model, resources: Resources) -> Setup:
    """Return how each vLLM is to be started.

    Raises:
        UsageError: the options do not fit one another.
    """
    on_cpu = torch.device(resources.device).type == "cpu"
    threads = config.threads or (1 if model.is_small else resources.threads)
    eager = on_cpu if config.eager is None else config.eager
    arguments: dict[str, Any] = {
        "dtype": str(choose_dtype(config.dtype, resources.device)).removeprefix("torch."),
        "max_model_len": choose_context(config.context_length, model),
        "max_num_seqs": config.max_batch,
        "enforce_eager": eager,
        "seed": resources.seed % 2**32,
        "logprobs_mode": "processed_logprobs",
        "skip_tokenizer_init": True,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        **(_for_adapters(config.lora_rank) if config.lora_rank else {}),
        **(_for_cpu(config) if on_cpu else _for_gpu(config, resources.device)),
    }
    given = {**arguments, **config.arguments}
    return Setup(str(path), given, model.end_ids, threads, config.in_flight)


def choose_dtype(name: str, device: str) -> torch.dtype:
    """Return the named type; "auto" is float32 on the CPU and bfloat16 on CUDA."""
    if name == "auto":
        return torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def choose_context(wanted: int | None, model: Model) -> int:
    """Return how many tokens a request may have.

    Raises:
        UsageError: the model has fewer than are wanted.
    """
    if wanted is not None and wanted > model.context_length:
        raise UsageError(
            f"engine.context_length is {wanted}, but the model's context ends at {model.context_length}"
        )
    return wanted or model.context_length


def make_program(setup: Setup, device: str, index: int) -> Program:
    """Return the process of vLLM number `index`."""
    on_cpu = torch.device(device).type == "cpu"
    variables = {"OMP_NUM_THREADS": str(setup.threads)} if on_cpu else {}
    return Program("agentrl_vllm.alone", "engine", index, device, gpus_of(setup.arguments), variables)


def gpus_of(arguments: dict[str, Any]) -> int:
    """Return how many GPUs a vLLM takes with these arguments of its own."""
    parts = (arguments.get(f"{kind}_parallel_size", 1) for kind in ("tensor", "pipeline"))
    return math.prod(int(part) for part in parts)


def _for_adapters(rank: int) -> dict[str, Any]:
    return {"enable_lora": True, "max_loras": 1, "max_lora_rank": lora_room(rank)}


def lora_room(rank: int) -> int:
    """Return for which rank vLLM sets room aside, so that adapters of `rank` find it."""
    return next(room for room in LORA_RANKS if room >= rank)


def _for_cpu(config: Any) -> dict[str, Any]:
    return {
        "kv_cache_memory_bytes": int((config.kv_cache_gb or 1.0) * 2**30),
        "block_size": _CPU_BLOCK,
        # Of a prompt read in pieces vLLM winds back the random numbers, which the CPU's generators cannot do.
        "enable_chunked_prefill": False,
    }


def _for_gpu(config: Any, device: str) -> dict[str, Any]:
    if not config.engines and torch.device(device).index:
        raise UsageError(f"in this process vLLM takes the first GPU; for {device} set engine.engines=1")
    memory: dict[str, Any] = {"gpu_memory_utilization": config.gpu_memory}
    if config.kv_cache_gb is not None:
        memory["kv_cache_memory_bytes"] = int(config.kv_cache_gb * 2**30)
    return {"enable_sleep_mode": True, **memory}
