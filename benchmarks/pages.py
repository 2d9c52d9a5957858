"""What does the built-in model learn in web pages? The runs that normcore and miniwob suggest, over seeds.

    python benchmarks/pages.py                              # both envs, three seeds
    python benchmarks/pages.py --envs normcore --seeds 0
    python benchmarks/pages.py --jobs 2                     # two runs side by side, one torch thread each
    python benchmarks/pages.py --report docs/pages.md       # also writes the tables there

Success is of held-out tasks: of the model as it is, when it has imitated the experts as the env suggests, and
after reinforcement learning; by gym under each profile of conditions, of which only the calm one is trained
under, and by page of MiniWoB++. Runs that are there already are not run again; one that was interrupted is
resumed.
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from learning import agentrl, read_lines, sets
from learning_report import put
from records import add_option, recorded

from agentrl.summary import UNTRAINED
from agentrl_miniwob import MiniWoB
from agentrl_normcore import Normcore

# How many held-out tasks: about 20 of each gym under each profile, and of each page.
TASKS = {"normcore": 300, "miniwob": 180}
ENVS = {"normcore": Normcore, "miniwob": MiniWoB}
PROFILES = ("calm", "shifting", "hostile")
# Untrained, after imitation, after the last update.
Shares = tuple[float, float, float]


@dataclass(frozen=True)
class Learnt:
    """Success of one run, 0 to 1, by what was played: as it was, after imitation, after the last update.

    `minutes` are all of the command's: imitation and three evaluations included.
    """

    seed: int
    success: Mapping[str, Shares]
    updates: int
    minutes: float


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--envs", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--out", type=Path, default=Path("runs/pages"))
    parser.add_argument("--report", type=Path, help="Markdown file with the places for the tables")
    add_option(parser)
    return parser.parse_args()


def learnt(env: str, seed: int, options: argparse.Namespace) -> Learnt:
    """Return how a run went, now or before."""
    suggested = ENVS[env].suggests_with["tiny_web"]
    asked = {"tasks": TASKS[env], "jobs": options.jobs, "suggested": suggested}
    found = recorded(options, f"{env}-{seed}", asked, lambda: train(env, seed, options))
    return Learnt(seed, found["success"], found["updates"], found["minutes"])


def train(env: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return how a run went, as `Learnt` says it, after making it if it is not there."""
    folder = options.out / f"{env}-{seed}"
    measured = {"evaluation.tasks": TASKS[env], "evaluation.every": 0, "checkpoints.every": 10}
    if options.jobs > 1:
        measured["threads"] = 1
    agentrl(folder, "--env", env, "--algo", "grpo", "--seed", str(seed), *sets(measured))
    updates = len(read_lines(folder / "metrics.jsonl"))
    rows = {row["step"]: row["metrics"] for row in read_lines(folder / "evaluations.jsonl")}
    way = [rows[step] for step in (UNTRAINED, 0, updates)]
    shares = {kind: [each[name]["mean"] for each in way] for name, kind in kinds(way[0]).items()}
    minutes = json.loads((folder / "summary.json").read_text())["wall_seconds"] / 60
    said = " -> ".join(f"{each['success']['mean']:.1%}" for each in way)
    print(f"{env} seed {seed}: {said} in {minutes:.0f} min", flush=True)
    return {"success": shares, "updates": updates, "minutes": minutes}


def kinds(metrics: Iterable[str]) -> Mapping[str, str]:
    """Return the names of success by all labels that tasks differ in, and what they say: "mail/calm"."""
    found = {name: name.removeprefix("success/").split(",") for name in metrics if "=" in name}
    most = max(map(len, found.values()))
    return {
        name: "/".join(label.partition("=")[2] for label in labels)
        for name, labels in found.items()
        if name.startswith("success/") and len(labels) == most
    }


def over_seeds(runs: Iterable[Learnt], kind: str) -> str:
    shares = [run.success[kind] for run in runs]
    untrained, imitated, learnt = (fmean(numbers) for numbers in zip(*shares, strict=True))
    seeds = ", ".join(f"{share[-1]:.0%}" for share in shares)
    return f"{untrained:.0%} → {imitated:.0%} → **{learnt:.0%}** ({seeds})"


def normcore_table(runs: Sequence[Learnt]) -> str:
    """Return success by gym and profile in Markdown."""
    gyms = sorted({kind.partition("/")[0] for run in runs for kind in run.success})
    rows = [
        " | ".join([f"`{gym}`", *(over_seeds(runs, f"{gym}/{profile}") for profile in PROFILES)])
        for gym in gyms
    ]
    return markdown(["gym", "calm (trained under)", *PROFILES[1:]], rows, runs)


def miniwob_table(runs: Sequence[Learnt]) -> str:
    """Return success by page in Markdown."""
    pages = sorted({page for run in runs for page in run.success})
    return markdown(["page", "success"], [f"`{page}` | {over_seeds(runs, page)}" for page in pages], runs)


def markdown(heads: Sequence[str], rows: Iterable[str], runs: Sequence[Learnt]) -> str:
    lines = [" | ".join(heads), " | ".join("---" for _ in heads), *rows]
    seeds = ", ".join(str(run.seed) for run in runs)
    minutes = ", ".join(f"{run.minutes:.0f}" for run in runs)
    said = (
        f"Untrained → after imitation → after reinforcement learning (in brackets by seed: {seeds}). "
        f"{runs[0].updates} updates; {minutes} minutes on two cores, all included."
    )
    return "\n".join([*(f"| {line} |" for line in lines), "", said])


TABLES = {"normcore": normcore_table, "miniwob": miniwob_table}


def main() -> None:
    options = arguments()
    work = [(env, seed) for env in options.envs for seed in options.seeds]
    with ThreadPoolExecutor(options.jobs) as pool:
        runs = list(pool.map(lambda job: learnt(*job, options), work))
    for env in options.envs:
        made = TABLES[env]([run for run, (of, _) in zip(runs, work, strict=True) if of == env])
        print(f"\n{made}")
        if options.report is not None:
            put([made], options.report, env)


if __name__ == "__main__":
    main()
