"""How long are weights on their way from the trainer to an engine? Beside a plain copy of them.

    python benchmarks/sync.py                               # the shapes of Qwen2.5 0.5B, 1.5B and 3B, on cuda
    python benchmarks/sync.py --device cpu --sizes 0.5B
    python benchmarks/sync.py --report docs/performance.md  # also writes the table there
    python benchmarks/sync.py --device cpu --small          # that it runs

Random weights. The engines are the torch engine, and vLLM in this process and in one of its own; of a LoRA
adapter on all linear layers vLLM gets either all weights with it merged in, or the adapter alone. A hand-over
begins with the trainer's weights and ends when the engine can generate with them. The copy is that of every
parameter of the trainer into a tensor of the engine's type on the same device: no hand-over of all weights
can be faster. Medians of `--repeats` that follow a first one.
"""

import argparse
import asyncio
import gc
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import torch
from device_table import DeviceTable, add_report
from gpu import SIZES, chosen
from transformers import Qwen2Config, Qwen2ForCausalLM

from agentrl.interfaces import Engine, Resources
from agentrl.plugins import make
from agentrl_grpo import GRPO
from agentrl_tiny import Tiny
from agentrl_torch import TorchTrainer
from agentrl_torch.loading import load_tokenizer

RANK = 16


@dataclass(frozen=True)
class Way:
    """An engine with its options, and whether an adapter is trained."""

    engine: str
    options: Mapping[str, Any] = field(default_factory=dict)
    adapter: bool = False


VLLM = {"context_length": 512, "kv_cache_gb": 0.25}
WAYS = {
    "torch": Way("torch"),
    "vllm": Way("vllm", VLLM),
    "vllm, its own process": Way("vllm", {**VLLM, "engines": 1}),
    "adapter merged, vllm": Way("vllm", VLLM, adapter=True),
    "adapter alone, vllm": Way("vllm", {**VLLM, "lora_rank": RANK}, adapter=True),
    "adapter merged, vllm, its own process": Way("vllm", {**VLLM, "engines": 1}, adapter=True),
    "adapter alone, vllm, its own process": Way(
        "vllm", {**VLLM, "engines": 1, "lora_rank": RANK}, adapter=True
    ),
}


def arguments() -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--small", action="store_true", help="a tiny model in place of them")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    add_report(parser)
    return parser.parse_args()


def start_trainer(folder: Path, resources: Resources, *, adapter: bool) -> TorchTrainer:
    lora = {"lora": {"rank": RANK}} if adapter else {}
    trainer = TorchTrainer(TorchTrainer.Config.model_validate(lora))
    trainer.start(folder, GRPO().needs, 1000, resources)
    return trainer


async def hand_over(way: Way, folder: Path, resources: Resources, repeats: int) -> float:
    """Return the median seconds from the trainer to the engine."""
    trainer = start_trainer(folder, resources, adapter=way.adapter)
    engine: Engine = make("engine", way.engine, dict(way.options))
    await engine.start(folder, resources)
    seconds = []
    for version in range(repeats + 1):
        begun = time.perf_counter()
        await engine.load_weights(trainer.weights(), version)
        wait_for(resources.device)
        seconds.append(time.perf_counter() - begun)
    await engine.close()
    trainer.close()
    return median(seconds[1:])


def copy(folder: Path, resources: Resources, repeats: int) -> float:
    """Return the median seconds of a copy of all parameters into tensors of the engine's type."""
    trainer = start_trainer(folder, resources, adapter=False)
    dtype = torch.float32 if resources.device == "cpu" else torch.bfloat16
    pairs = [(each, torch.empty_like(each, dtype=dtype)) for each in trainer.weights().values()]
    seconds = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        with torch.no_grad():
            for tensor, other in pairs:
                other.copy_(tensor)
        wait_for(resources.device)
        seconds.append(time.perf_counter() - begun)
    trainer.close()
    return median(seconds[1:])


def wait_for(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def compare(size: str, config: Qwen2Config, table: DeviceTable, options: argparse.Namespace) -> None:
    resources = Resources(threads=options.threads, device=options.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(config)
        gigabytes = sum(each.numel() for each in model.parameters()) * 4 / 1e9
        model.to(torch.bfloat16).save_pretrained(folder)
        load_tokenizer(Tiny().path()).save_pretrained(folder)
        del model
        bound = copy(folder, resources, options.repeats)
        table.add(size, f"a copy ({gigabytes:.2f} GB in float32)", f"{bound:.3f} s", "1")
        for way in options.ways:
            if find_spec(WAYS[way].engine):
                clear()
                took = asyncio.run(hand_over(WAYS[way], folder, resources, options.repeats))
                table.add(size, way, f"{took:.3f} s", f"{took / bound:.1f}")
            else:
                table.add(size, way, f"{WAYS[way].engine} is not installed", "")


def clear() -> None:
    gc.collect()
    torch.cuda.empty_cache()


def main() -> None:
    options = arguments()
    table = DeviceTable("model", "to", "seconds", "copies")
    for size, config in chosen(options).items():
        compare(size, config, table, options)
    table.end(options, "sync")


if __name__ == "__main__":
    main()
