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
import gzip
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from learning import agentrl, read_lines, sets
from learning_report import put
from records import add_option, recorded

from agentrl_miniwob import MiniWoB
from agentrl_normcore import Normcore

# How many held-out tasks: about 20 of each gym under each profile, and of each page.
TASKS = {"normcore": 300, "miniwob": 180}
ENVS = {"normcore": Normcore, "miniwob": MiniWoB}
PROFILES = ("calm", "shifting", "hostile")
Share = tuple[float, float]


@dataclass(frozen=True)
class Learnt:
    """Success of one run, 0 to 1, after imitation and after the last update, by what was played.

    `untrained` is that of all tasks before imitation. `minutes` are all of the command's: imitation and three
    evaluations included.
    """

    seed: int
    untrained: float
    success: Mapping[str, Share]
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
    found = recorded(options.records, f"{env}-{seed}", asked, lambda: train(env, seed, options))
    return Learnt(seed, found["untrained"], found["success"], found["updates"], found["minutes"])


def train(env: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return how a run went, as `Learnt` says it, after making it if it is not there."""
    folder = options.out / f"{env}-{seed}"
    measured = {"evaluation.tasks": TASKS[env], "evaluation.every": 0, "checkpoints.every": 10}
    if options.jobs > 1:
        measured["threads"] = 1
    agentrl(folder, "--env", env, "--algo", "grpo", "--seed", str(seed), *sets(measured))
    metrics, (untrained, *_) = (read_lines(folder / f"{name}.jsonl") for name in ("metrics", "evaluations"))
    first, last = (outcomes(folder, step) for step in (0, len(metrics)))
    shares = {kind: (fmean(first[kind]), fmean(last[kind])) for kind in sorted(first)}
    minutes = json.loads((folder / "summary.json").read_text())["wall_seconds"] / 60
    total = [fmean(each for kind in found.values() for each in kind) for found in (first, last)]
    before = untrained["metrics"]["success"]["mean"]
    way = " -> ".join(f"{share:.1%}" for share in (before, *total))
    print(f"{env} seed {seed}: {way} in {minutes:.0f} min", flush=True)
    return {"untrained": before, "success": shares, "updates": len(metrics), "minutes": minutes}


def outcomes(folder: Path, step: int) -> Mapping[str, list[bool]]:
    """Return the successes of an evaluation by the labels of its tasks, such as "mail/calm"."""
    found = defaultdict(list)
    with gzip.open(folder / "trajectories" / f"eval-{step:06}.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in map(json.loads, lines):
            outcome = line["outcome"]
            found["/".join(line["task"]["labels"].values())].append(bool(outcome and outcome["success"]))
    return found


def over_seeds(runs: Iterable[Learnt], kind: str) -> str:
    shares = [run.success[kind] for run in runs]
    before, after = (fmean(share[when] for share in shares) for when in (0, 1))
    return f"{before:.0%} → **{after:.0%}** ({', '.join(f'{share[1]:.0%}' for share in shares)})"


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
    lines = [" | ".join(heads), "|".join("---" for _ in heads), *rows]
    updates, minutes = (
        fmean(numbers) for numbers in zip(*((r.updates, r.minutes) for r in runs), strict=True)
    )
    untrained = fmean(run.untrained for run in runs)
    seeds = ", ".join(str(run.seed) for run in runs)
    said = (
        f"After imitation → after reinforcement learning (in brackets by seed: {seeds}); "
        f"before imitation {untrained:.0%} of all. {updates:.0f} updates, {minutes:.0f} minutes each "
        "on two cores, imitation and three evaluations included."
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
