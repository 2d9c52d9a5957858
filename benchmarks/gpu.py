"""How much of a GPU does an update use? Over a trie, with either attention, and over padded sequences.

    python benchmarks/gpu.py                               # the shapes of Qwen2.5 0.5B, 1.5B and 3B, on cuda
    python benchmarks/gpu.py --sizes 1.5B --prompt 16000 --members 16 --peak 312
    python benchmarks/gpu.py --report docs/performance.md  # also writes the table there
    python benchmarks/gpu.py --device cpu --small          # that it runs

Random weights and tokens: a group with one prompt, 6 turns of 32 sampled tokens, observations of 100 tokens.
An update is gradients of GRPO's loss and a step of AdamW; bfloat16 products on a GPU, weights in float32.
`padded` is transformers' own model on whole sequences, with logits where a token was sampled. MFU counts what
each way has to compute, without what is computed a second time: 6 for each weight and token, 12 for each
layer, query width and pair of tokens that see each other, as a part of `--peak`. In the trie's last layer
only keys and values are counted of all tokens, the rest of those that a sampled one comes after.
"""

import argparse
import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from device_table import DeviceTable, add_report
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from agentrl import Group, Segment, Span, Task, Trajectory
from agentrl.errors import OutOfMemory
from agentrl.interfaces import Resources
from agentrl_grpo import GRPO
from agentrl_torch import TorchTrainer, adaptation, micro_batch, optimization

TURNS, SAMPLED, OBSERVED = 6, 32, 100
# TFLOP/s of dense products in bfloat16, as the makers say.
PEAKS = {"H100": 989, "H200": 989, "A100": 312, "L40S": 362, "RTX 4090": 165}


def qwen(width: int, inner: int, layers: int, heads: int, vocabulary: int = 151_936) -> Qwen2Config:
    shape = {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers}
    known = {"num_attention_heads": heads, "num_key_value_heads": 2, "vocab_size": vocabulary}
    return Qwen2Config(**shape, **known, tie_word_embeddings=True)


SMALL = qwen(64, 128, 2, 4, 512)
SIZES = {"0.5B": qwen(896, 4864, 24, 14), "1.5B": qwen(1536, 8960, 28, 12), "3B": qwen(2048, 11_008, 36, 16)}


@dataclass(frozen=True)
class Load:
    """What an update has to compute.

    Attributes:
        tokens: in each layer.
        pairs: of a token and one that it sees, in each layer but the last.
        last: tokens whose output the last layer is for.
        last_pairs: of one of these and a token that it sees.
        logits: of how many tokens.
    """

    tokens: int
    pairs: int
    last: int
    last_pairs: int
    logits: int

    def flops(self, config: Qwen2Config) -> float:
        """Return the operations of the forward and the backward pass."""
        width, layers = config.hidden_size, config.num_hidden_layers
        keys = width // config.num_attention_heads * config.num_key_value_heads
        # Queries, outputs and MLP; keys and values are computed of all tokens in the last layer, too.
        weights = 2 * width * width + 3 * width * config.intermediate_size
        dense = (self.tokens * (layers - 1) + self.last) * weights + self.tokens * layers * 2 * width * keys
        pairs = self.pairs * (layers - 1) + self.last_pairs
        return 6 * (dense + self.logits * config.vocab_size * width) + 12 * width * pairs


def play(prompt: int, members: int, vocabulary: int) -> Group:
    draw = np.random.default_rng(0)
    shared, task = draw.integers(0, vocabulary, prompt).tolist(), Task("random")
    trajectories = []
    for member in range(members):
        part = Segment(list(shared))
        for turn in range(TURNS):
            part.spans.append(Span(len(part.token_ids), [float("nan")] * SAMPLED, turn))
            part.token_ids += draw.integers(0, vocabulary, SAMPLED + OBSERVED).tolist()
        trajectories.append(Trajectory(task, segments=[part], reward=float(member % 2)))
    return Group(task, trajectories)


def loads(group: Group) -> tuple[Load, Load]:
    """Return what there is to compute over the trie, and over whole sequences."""
    micro = micro_batch.pack(micro_batch.encode([group]))
    seen_T = micro.trie.positions_T + 1
    reads = micro.slots_R.unique()
    pairs, last_pairs = int(seen_T.sum()), int(seen_T[reads].sum())
    trie = Load(len(micro.trie), pairs, len(reads), last_pairs, len(micro.slots_R))
    lengths = [len(slots) for slots in micro.trie.slots]
    tokens, pairs = sum(lengths), sum(length * (length + 1) // 2 for length in lengths)
    sampled = sum(trajectory.sampled for trajectory in group.trajectories)
    return trie, Load(tokens, pairs, tokens, pairs, sampled)


def over_trie(folder: Path, group: Group, options: argparse.Namespace, kernels: str) -> Iterator[float]:
    """Make an update whenever asked, and return the most GiB of a GPU that it took."""
    memory = {"gradient_checkpointing": options.recompute, "micro_batch_tokens": options.tokens}
    trainer, algorithm = TorchTrainer(TorchTrainer.Config(kernels=kernels, **memory)), GRPO()
    trainer.start(folder, algorithm.needs, 1000, Resources(device=options.device))
    while True:
        batch = trainer.prepare([group], algorithm.needs)
        # It counts the most itself, and then anew.
        yield trainer.update(batch, algorithm.credit(batch), algorithm).get("memory/gpu_peak", 0.0)


def padded(folder: Path, group: Group, options: argparse.Namespace) -> Iterator[float]:
    """Make the same update with transformers' own model whenever asked."""
    device, rows = torch.device(options.device), micro_batch.encode([group])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device)
    if options.recompute:
        adaptation.keep_no_activations(model)
    optimizer = optimization.adamw(model.parameters(), 1e-6, (0.9, 0.95), 0.0)
    ids_BT = torch.from_numpy(np.stack([row.sequences[0] for row in rows])).long().to(device)
    sources = torch.from_numpy(rows[0].sources[0]).to(device)
    targets_BN = torch.from_numpy(np.stack([row.targets_N for row in rows])).to(device)
    advantages_B1 = torch.tensor([[2 * t.reward - 1] for t in group.trajectories], device=device)
    while True:
        at_once = max(1, options.tokens // ids_BT.shape[1])
        for here in torch.arange(len(rows), device=device).split(at_once):
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                hidden_BTD = model.model(input_ids=ids_BT[here], use_cache=False).last_hidden_state
                logits_BNV = model.lm_head(hidden_BTD[:, sources])
            logprobs_BN = -torch.nn.functional.cross_entropy(
                logits_BNV.float().flatten(0, 1), targets_BN[here].flatten(), reduction="none"
            ).view(len(here), -1)
            (-(advantages_B1[here] * logprobs_BN).sum() / targets_BN.numel()).backward()
        optimization.step(optimizer, 1.0, 1)
        optimizer.zero_grad()
        yield torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0


def measure(updates: Iterator[float], options: argparse.Namespace) -> tuple[float, float]:
    """Return the median seconds of an update, after one that compiles, and GiB of a GPU at the most."""
    cuda, seconds, peaks = torch.cuda.is_available(), [], []
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(options.repeats + 1):
        begun = time.perf_counter()
        peaks.append(next(updates))
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    return median(seconds[1:]), max(peaks)


def row(make: Callable[[], Iterator[float]], flops: float, options: argparse.Namespace) -> list[str]:
    try:
        seconds, peak = measure(make(), options)
    except (OutOfMemory, torch.OutOfMemoryError):
        return ["does not fit", "", "", ""]
    finally:
        gc.collect()
        torch.cuda.empty_cache()
    speed = flops / seconds / 1e12
    part = f"{speed / options.peak:.0%}" if options.peak else "?"
    return [f"{seconds:.2f} s", f"{speed:.3g}", part, f"{peak:.1f} GiB"]


def arguments() -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--small", action="store_true", help="a tiny model and prompt in place of them")
    parser.add_argument("--prompt", type=int, default=4000, help="tokens, shared")
    parser.add_argument("--members", type=int, default=8, help="trajectories of the group")
    parser.add_argument("--tokens", type=int, default=16_384, help="computed at once")
    parser.add_argument("--recompute", action="store_true", help="keep no activations, compute them twice")
    parser.add_argument("--repeats", type=int, default=3, help="updates that count")
    parser.add_argument("--peak", type=float, help="TFLOP/s that the device could do; known of some GPUs")
    add_report(parser)
    options = parser.parse_args()
    if options.peak is None and options.device.startswith("cuda"):
        name = torch.cuda.get_device_name()
        options.peak = next((peak for known, peak in PEAKS.items() if known in name), None)
    return options


def chosen(options: argparse.Namespace) -> dict[str, Qwen2Config]:
    """Return the shapes that `--small` or `--sizes` ask for, by name."""
    if options.small:
        return {"small": SMALL}
    return {size: config for size, config in SIZES.items() if size in options.sizes}


def compare(size: str, config: Qwen2Config, table: DeviceTable, options: argparse.Namespace) -> None:
    group = play(256 if options.small else options.prompt, options.members, config.vocab_size)
    trie, alone = loads(group)
    with tempfile.TemporaryDirectory() as name:
        torch.manual_seed(0)
        Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(name)
        arguments = Path(name), group, options
        ways = {
            "trie, fast": (trie, partial(over_trie, *arguments, "fast")),
            "trie, plain": (trie, partial(over_trie, *arguments, "plain")),
            "padded": (alone, partial(padded, *arguments)),
        }
        for way, (load, make) in ways.items():
            table.add(size, way, *row(make, load.flops(config), options))


def main() -> None:
    options = arguments()
    table = DeviceTable("model", "attention", "an update", "TFLOP/s", "MFU", "memory")
    for size, config in chosen(options).items():
        compare(size, config, table, options)
    table.end(options, "gpu")


if __name__ == "__main__":
    main()
