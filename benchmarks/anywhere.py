"""Does one run learn the same whatever computes it? Success on the way, by engine, trainer and runtime.

    python benchmarks/anywhere.py                                  # all that is installed here
    python benchmarks/anywhere.py --only "fsdp2 x 2" lora --seeds 0
    python benchmarks/anywhere.py --report docs/performance.md     # also writes the table there

`agentrl run --env deepsearch --algo grpo` with another engine, trainer or runtime, and nothing else changed
but the adapter's learning rate. Success is of the same 200 held-out tasks. Extras that do not go into one
virtual environment take turns: runs that are there already are not run again, and what is neither there nor
installed is left out by name; `--records` keeps what was measured. "Audit" is the largest difference between
what engine and trainer say of a token, in nats.
"""

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any

from learning import agentrl, read_lines, sets
from learning_report import put
from records import NotMeasuredError, add_option, recorded

COMMON = {"evaluation.tasks": 200, "evaluation.every": 20, "checkpoints.every": 0}
VLLM = {"engine": "vllm"}
AUDIT = "audit/max_logprob_difference"
RAY_NODE = {"num_cpus": 4, "object_store_memory": 200 * 2**20}


@dataclass(frozen=True)
class Way:
    """Something to compute a run with.

    Attributes:
        name: in the table.
        settings: what `--set` is given for it.
        needs: packages that have to be installed.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()


def zero(stage: int, ranks: int) -> Way:
    settings = {**VLLM, "trainer": "deepspeed", "trainer.stage": stage, "trainer.ranks": ranks}
    return Way(f"vllm, zero-{stage} x {ranks}", settings, ("vllm", "deepspeed"))


WAYS = (
    Way("torch"),
    Way("vllm", VLLM, ("vllm",)),
    *(zero(stage, ranks) for stage in (1, 2, 3) for ranks in (1, 2)),
    Way("fsdp2 x 2", {"trainer.ranks": 2}),
    Way("lora", {"trainer.lora.rank": 8, "trainer.learning_rate": 3e-3}, ("peft",)),
    Way(
        "ray, fsdp2 on 2 nodes",
        {"runtime": "ray", "runtime.strategy": "SPREAD", "trainer.ranks": 2, "simulator.workers": 2},
        ("ray",),
    ),
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=[way.name for way in WAYS])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=60, help="updates of every run")
    parser.add_argument("--out", type=Path, default=Path("runs/anywhere"))
    parser.add_argument("--report", type=Path, help="Markdown file with the place for the table")
    add_option(parser)
    return parser.parse_args()


class NotInstalledError(Exception):
    """A run can neither be read nor made here."""


@dataclass(frozen=True)
class Curve:
    """Success of one run after so many updates, 0 to 1, and the largest difference its audits have found."""

    success: Mapping[int, float]
    audit: float


def curve(way: Way, seed: int, options: argparse.Namespace) -> Curve | None:
    """Return how a run went, or None if it is not there and cannot be made here."""
    name = f"{way.name.replace(', ', '-').replace(' ', '-')}-{seed}"
    asked = {**COMMON, **way.settings, "steps": options.steps}
    try:
        found = recorded(options, name, asked, lambda: train(way, name, seed, options))
    except (NotInstalledError, NotMeasuredError) as error:
        print(f"{way.name}, seed {seed}: left out; {error}")
        return None
    success = {int(step): share for step, share in found["success"].items()}
    line = "  ".join(f"{step}:{share:.1%}" for step, share in success.items())
    print(f"{way.name}, seed {seed}: {line}  audit {found['audit']:.0e}", flush=True)
    return Curve(success, found["audit"])


def train(way: Way, name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the success of a run by update, and its audit, after making it if it is not there."""
    folder = options.out / name
    if not (folder / "summary.json").exists():
        missing = [package for package in way.needs if not find_spec(package)]
        if missing:
            raise NotInstalledError(f"not installed here: {', '.join(missing)}")
        command = "--env", "deepsearch", "--algo", "grpo", "--seed", str(seed)
        with cluster(way) as place:
            agentrl(folder, *command, *sets({**COMMON, **way.settings, **place, "steps": options.steps}))
    rows = [row for row in read_lines(folder / "evaluations.jsonl") if row["step"] >= 0]
    if rows[-1]["step"] != options.steps:
        raise SystemExit(f"{folder} is a run of {rows[-1]['step']} updates: delete it, or name another --out")
    success = {row["step"]: row["metrics"]["success"]["mean"] for row in rows}
    metrics = read_lines(folder / "metrics.jsonl")
    return {"success": success, "audit": max(row.get(AUDIT, 0.0) for row in metrics)}


@contextmanager
def cluster(way: Way) -> Iterator[dict[str, str]]:
    """Return the options that lead to a cluster of two nodes on this machine, if the way goes over Ray."""
    if way.settings.get("runtime") != "ray":
        yield {}
        return
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={**RAY_NODE, "include_dashboard": False})
    try:
        made.add_node(**RAY_NODE)
        yield {"runtime.address": made.address}
    finally:
        made.shutdown()


def table(curves: Mapping[str, list[Curve]]) -> str:
    """Return success in Markdown: its mean over seeds on the way, and each seed's at the end."""
    steps = list(next(iter(curves.values()))[0].success)
    heads = ["", *(f"after {step}" for step in steps), "seeds", "audit"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name, found in curves.items():
        means = [f"{fmean(each.success[step] for each in found):.1%}" for step in steps]
        means[-1] = f"**{means[-1]}**"
        ends = ", ".join(f"{each.success[steps[-1]]:.1%}" for each in found)
        audit = f"{max(each.audit for each in found):.0e}"
        lines.append("| " + " | ".join([f"`{name}`", *means, ends, audit]) + " |")
    return "\n".join(lines)


def main() -> None:
    options = arguments()
    chosen = [way for way in WAYS if not options.only or way.name in options.only]
    all_curves = {way.name: [curve(way, seed, options) for seed in options.seeds] for way in chosen}
    found = {name: [each for each in curves if each] for name, curves in all_curves.items()}
    if not any(found.values()):
        raise SystemExit("nothing of this is installed here or was measured before")
    made = table({name: curves for name, curves in found.items() if curves})
    print(f"\n{made}")
    if options.report is not None:
        put([made], options.report, "anywhere")


if __name__ == "__main__":
    main()
