"""How fast is an update, against the same model's plain forward and backward on as many tokens?

    python benchmarks/update_share.py                               # two models, prompts of 200, 1000, 4000
    python benchmarks/update_share.py --prompts 200 --groups 1 --rounds 3 --threads 1 --clock cpu
    python benchmarks/update_share.py --report docs/performance.md  # also writes the table there

The update is all that the torch trainer does for one: `prepare`, GRPO's `credit`, `update` with token audit,
tries, loss, gradients, their norm and AdamW, for groups of 8 trajectories that share a prompt (the shapes of
`work.Work`: 6 turns of 32 sampled tokens, observations of 100). What trajectories share counts once: these
are the unique tokens, the last token of each trajectory left out, after which nothing was sampled.

The plain pass has exactly as many tokens, none of them shared: ordinary causal sequences of random tokens, as
long as the trajectories (the last takes what is left), side by side as long as 8192 tokens allow, so nothing
is padded. It runs the model as transformers loads it, with PyTorch's attention, and has a log-softmax at as
many positions as there are sampled tokens, the mean of the log-probabilities there, and its gradients. It has
no optimizer, no audit, no entropy.

The unique tokens of a group mostly stand deep, behind their prompt, so that each attends to more than a
token of a plain sequence does on average: attention makes the comparison harder for the update, not easier.
"With our kernels" is the plain pass with the dense layers and norms that the trainer puts into its model
(`trainer.kernels`), so that this share is of the update's own work alone. Rounds alternate; shares are tokens
a second of the update in those of the plain pass, within a round. Float32, on the CPU.
"""

import argparse
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

from learning_report import put
from work import TEN_MILLION, VOCABULARY, Stopwatch, Work, write_model

from agentrl.interfaces import Resources
from agentrl.types import Group, Segment, Span, Task, Trajectory

# Tokens that the plain pass computes at once; the trainer's own measure of what is handy.
AT_ONCE = 8192
MODELS: dict[str, Callable[[Path], int]] = {
    "small": write_model,
    "larger": partial(write_model, **TEN_MILLION),
}
HEAD = (
    "| model | prompt | trajectories | unique tokens | update, tokens/s | share of plain transformers "
    "| with our kernels |\n|---|---|---|---|---|---|---|"
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--prompts", type=int, nargs="+", default=[200, 1000, 4000], help="tokens, shared")
    parser.add_argument("--groups", type=int, default=2, help="in an update")
    parser.add_argument("--rounds", type=int, default=5, help="that count, after one that does not")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: with --threads 1")
    parser.add_argument("--report", type=Path, help="Markdown file with the place for the table")
    return parser.parse_args()


class Update:
    """agentrl's update."""

    def __init__(self, model: Path, work: Work) -> None:
        """Start the trainer."""
        from agentrl_grpo import GRPO
        from agentrl_torch import TorchTrainer

        self._work, self._rounds = work, 0
        self._algorithm = GRPO()
        # What has "sampled" the tokens is no model at all, and the audit is to compare, not to stop.
        self._trainer = TorchTrainer(TorchTrainer.Config(audit_threshold=100.0))
        self._trainer.start(model, self._algorithm.needs, 1000, Resources(threads=work.threads))

    def make(self) -> list[Group]:
        """Return other groups every time."""
        self._rounds += 1
        draw = random.Random(self._rounds)
        return [groups_of(self._work, index, draw) for index in range(self._work.groups)]

    def run(self, groups: list[Group]) -> None:
        """Do an update."""
        batch = self._trainer.prepare(groups, self._algorithm.needs)
        credits = self._algorithm.credit(batch)
        self._trainer.update(batch, credits, self._algorithm)


class Plain:
    """The plain forward and backward pass."""

    def __init__(self, model: Path, work: Work, *, accelerated: bool) -> None:
        """Load the model."""
        import torch
        from transformers import AutoModelForCausalLM

        from agentrl_torch.kernels import accelerate

        self._model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        self._work = work
        if accelerated:
            accelerate(self._model)

    def make(self) -> list[tuple[Any, Any]]:
        """Return ids (sequences, tokens) and places to read, among all tokens, of each pass."""
        import torch

        lengths, total, read = sequences(self._work), unique(self._work), self._work.sampled
        passes, before = [], 0
        for rows, length in batches(lengths):
            # As many as fall to its share of the tokens, evenly spread.
            wanted = read * (before + rows * length) // total - read * before // total
            before += rows * length
            places = torch.arange(wanted) * (rows * length) // wanted
            passes.append((torch.randint(VOCABULARY, (rows, length)), places))
        return passes

    def run(self, passes: list[tuple[Any, Any]]) -> None:
        """Compute the gradients."""
        import torch

        self._model.zero_grad()
        for ids_BT, places_R in passes:
            output = self._model.get_decoder()(input_ids=ids_BT, use_cache=False)
            hidden_RD = output.last_hidden_state.flatten(0, 1).index_select(0, places_R)
            logprobs_RV = torch.log_softmax(self._model.get_output_embeddings()(hidden_RD), -1)
            targets_R = ids_BT.flatten().index_select(0, places_R)
            picked_R = logprobs_RV.gather(1, targets_R.unsqueeze(1))
            (-picked_R.sum() / self._work.sampled).backward()


def groups_of(work: Work, index: int, draw: random.Random) -> Group:
    """Return a group as `work` says, of random tokens."""
    prompt = draw.choices(range(VOCABULARY), k=work.prompt)
    task = Task(f"{index}")
    trajectories = [
        Trajectory(task, segments=[segment(work, prompt, draw)], reward=float(member % 2))
        for member in range(work.group_size)
    ]
    return Group(task, trajectories)


def segment(work: Work, prompt: list[int], draw: random.Random) -> Segment:
    rest = draw.choices(range(VOCABULARY), k=work.length - work.prompt)
    starts = [work.prompt + turn * (work.new_tokens + work.observation) for turn in range(work.turns)]
    # About what a model with random weights says of any token.
    logprobs = [-6.9] * work.new_tokens
    return Segment(prompt + rest, [Span(start, logprobs, turn) for turn, start in enumerate(starts)])


def unique(work: Work) -> int:
    """Return how many tokens an update computes."""
    return work.unique - work.trajectories


def sequences(work: Work) -> list[int]:
    """Return the lengths of the plain sequences: together as many tokens as an update computes."""
    whole, rest = divmod(unique(work), work.length - 1)
    return [work.length - 1] * whole + [rest] * bool(rest)


def batches(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield how many sequences, and how long, go into each pass."""
    for length in dict.fromkeys(lengths):
        left, most = lengths.count(length), max(1, AT_ONCE // length)
        while left:
            rows = min(left, most)
            yield rows, length
            left -= rows


def measure(model: Path, work: Work, rounds: int, clock: Literal["wall", "cpu"]) -> list[list[float]]:
    """Return the seconds of the update and of both plain passes, round by round."""
    sides: list[Any] = [Update(model, work), *(Plain(model, work, accelerated=a) for a in (False, True))]
    seconds: list[list[float]] = [[] for _ in sides]
    for index in range(rounds + 1):
        order = list(zip(sides, seconds, strict=True))
        for side, found in order if index % 2 == 0 else reversed(order):
            made = side.make()
            watch = Stopwatch()
            side.run(made)
            if index:
                found.append(watch.lap()[clock])
    return seconds


def line(name: str, work: Work, seconds: list[list[float]]) -> str:
    update, *plain = seconds
    shares = [[100 * p / u for u, p in zip(update, each, strict=True)] for each in plain]
    speed = unique(work) / median(update)
    words = [name, f"{work.prompt:,}", str(work.trajectories), f"{unique(work):,}", f"{speed:,.0f}"]
    return f"| {' | '.join([*words, *map(spread, shares)])} |"


def spread(shares: Sequence[float]) -> str:
    return f"**{median(shares):.0f}%** ({min(shares):.0f}% to {max(shares):.0f}%)"


def main() -> None:
    options = arguments()
    threads = str(options.threads)
    # Before torch is imported anywhere: its maths libraries read these once.
    os.environ |= {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "TRANSFORMERS_VERBOSITY": "error"}
    import torch

    torch.set_num_threads(options.threads)
    lines = []
    print(HEAD, flush=True)
    for model in options.models:
        with tempfile.TemporaryDirectory() as folder:
            name = f"{model}, {MODELS[model](Path(folder)) / 1e6:.1f} million"
            for prompt in options.prompts:
                work = Work(prompt, options.groups, options.threads)
                seconds = measure(Path(folder), work, options.rounds, options.clock)
                lines.append(line(name, work, seconds))
                print(lines[-1], flush=True)
    if options.report is not None:
        put(["\n".join([HEAD, *lines])], options.report, "update share")


if __name__ == "__main__":
    main()
