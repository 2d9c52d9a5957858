"""What does the built-in model learn in AppWorld's small world? The run that the env suggests, over seeds.

    agentrl env setup appworld
    python benchmarks/appworld.py                               # a quarter of an hour a run on two cores
    python benchmarks/appworld.py --only ppo --seeds 0
    python benchmarks/appworld.py --report docs/appworld.md     # also writes the table there

A run is `agentrl run --env appworld --algo ALGORITHM --seed SEED`, evaluated on all 84 held-out tasks of
difficulty 1, of people and things that no task to train on has: as it is (the built-in model solves nothing),
when it has imitated the experts, and every 20 updates. Runs that are there already are not run again; one
that was interrupted is resumed.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from learning import agentrl, read_lines, sets
from learning_report import put
from records import add_option, recorded

from agentrl_appworld import AppWorld

ALGORITHMS = ("ppo", "grpo", "salt")
MODEL = "tiny_code"
STATIONS = ("untrained", "after imitation", "after learning")
HELD_OUT = {"evaluation.tasks": 84, "evaluation.every": 20, "checkpoints.every": 10}


@dataclass(frozen=True)
class Learnt:
    """Success of one run on held-out tasks, 0 to 1, after so many updates; -1 is before imitation.

    `minutes` are all of the command's: imitation and evaluations included.
    """

    algorithm: str
    seed: int
    goals: dict[str, float]
    scenarios: dict[str, float]
    minutes: float

    def stations(self, of: str) -> tuple[float, float, float]:
        """Return `goals` or `scenarios` as the model comes, when it has imitated, and when it has learnt."""
        way = getattr(self, of)
        return way["-1"], way["0"], list(way.values())[-1]

    @property
    def updates(self) -> int:
        """Return how many updates there were."""
        return int(list(self.goals)[-1])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=ALGORITHMS, help="algorithms")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/appworld"))
    parser.add_argument("--report", type=Path, help="Markdown file with the place for the table")
    add_option(parser)
    return parser.parse_args()


def train(algorithm: str, seed: int, out: Path) -> dict[str, Any]:
    """Return how a run went, as `Learnt` says it, after making it if it is not there."""
    folder = out / f"{algorithm}-{seed}"
    agentrl(folder, "--env", "appworld", "--algo", algorithm, "--seed", str(seed), *sets(HELD_OUT))
    rows = read_lines(folder / "evaluations.jsonl")
    goals, scenarios = (
        {str(row["step"]): row["metrics"][name]["mean"] for row in rows}
        for name in ("success", "scenario_success")
    )
    minutes = json.loads((folder / "summary.json").read_text())["wall_seconds"] / 60
    way = "  ".join(f"{step}:{success:.0%}" for step, success in goals.items())
    print(f"{algorithm:<5} seed {seed}  {way}  {minutes:.0f} min", flush=True)
    return {"goals": goals, "scenarios": scenarios, "minutes": minutes}


def learnt(algorithm: str, seed: int, options: argparse.Namespace) -> Learnt:
    """Return how a run went, now or before."""
    name = f"{algorithm}-{seed}"
    asked = {**HELD_OUT, "suggested": AppWorld.suggests_with[MODEL]}
    found = recorded(options, name, asked, lambda: train(algorithm, seed, options.out))
    return Learnt(algorithm, seed, found["goals"], found["scenarios"], found["minutes"])


def table(runs: list[Learnt]) -> str:
    """Return the runs in Markdown, one algorithm a line."""
    heads = [f"{name} {what}" for name in ("TGC", "SGC") for what in STATIONS]
    lines = ["| | " + " | ".join([*heads, "updates", "minutes"]) + " |", "|" + "---|" * (len(heads) + 3)]
    for algorithm in dict.fromkeys(run.algorithm for run in runs):
        mine = [run for run in runs if run.algorithm == algorithm]
        cells = [
            over_seeds([run.stations(of)[when] for run in mine])
            for of in ("goals", "scenarios")
            for when in range(len(STATIONS))
        ]
        updates, minutes = (
            fmean(numbers) for numbers in zip(*((r.updates, r.minutes) for r in mine), strict=True)
        )
        lines.append("| " + " | ".join([f"`{algorithm}`", *cells, f"{updates:.0f}", f"{minutes:.0f}"]) + " |")
    return "\n".join(lines)


def over_seeds(numbers: list[float]) -> str:
    return f"**{fmean(numbers):.1%}** ({', '.join(f'{number:.1%}' for number in numbers)})"


def main() -> None:
    options = arguments()
    runs = [learnt(algorithm, seed, options) for seed in options.seeds for algorithm in options.only]
    made = table(runs)
    print(made)
    if options.report is not None:
        put([made], options.report)


if __name__ == "__main__":
    main()
