"""Which algorithm learns what? All of them on both built-in envs, with equal numbers of trajectories.

    python benchmarks/learning.py                              # everything; hours on two cores
    python benchmarks/learning.py --only grpo salt --envs house --seeds 0 1 2 3 4
    python benchmarks/learning.py --report docs/algorithms.md  # also writes the table and the curves there

Each run begins with the same model and sees 100 updates (`house`: 60) of 8 tasks x 8 trajectories, two
optimizer steps an update, a learning rate that falls to 0, one torch thread; success is measured on held-out
tasks. Where an algorithm plays more than that (dynamic sampling), its curve is read at the same number of
trajectories. Runs that are there already are not run again.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
from contenders import CONTENDERS, Contender
from learning_report import write_report

TASKS, SIZE = 8, 8
# Updates of a run.
STEPS = {"deepsearch": 100, "house": 60}
COMMON = {
    "threads": 1,
    "tasks_per_step": TASKS,
    "group_size": SIZE,
    "trainer.minibatches": 2,
    "trainer.learning_rate": 1.5e-4,
    "trainer.warmup_steps": 10,
    "trainer.schedule": "linear",
    "simulator.max_new_tokens": 32,
    "evaluation.tasks": 200,
    "evaluation.every": 25,
    "checkpoints.every": 0,
}


@dataclass(frozen=True)
class Curve:
    """Success on held-out tasks, 0 to 1, after so many trajectories."""

    contender: Contender
    env: str
    seed: int
    trajectories: list[int]
    success: list[float]

    def at(self, trajectories: int) -> float:
        """Return the success after so many trajectories, between evaluations on a straight line."""
        return float(np.interp(trajectories, self.trajectories, self.success))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--envs", nargs="+", default=list(STEPS), choices=STEPS)
    parser.add_argument("--only", nargs="+", help="names of contenders; all by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="updates of every run")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    parser.add_argument("--out", type=Path, default=Path("runs/learning"))
    parser.add_argument("--report", type=Path, help="Markdown file with the place for the table")
    return parser.parse_args()


def sets(options: dict[str, object]) -> list[str]:
    return [word for key, value in options.items() for word in ("--set", f"{key}={value}")]


def agentrl(folder: Path, *words: str) -> None:
    """Run `agentrl run` into `folder`, unless it was finished before.

    Raises:
        SystemExit: it fails, or the folder has a run that was asked for in other words.
    """
    asked = folder.with_name(f"{folder.name}.asked.json")
    if asked.exists() and json.loads(asked.read_text()) != list(words):
        raise SystemExit(f"{folder} has a run of other settings: delete it, or name another --out")
    folder.parent.mkdir(parents=True, exist_ok=True)
    asked.write_text(json.dumps(words))
    if (folder / "summary.json").exists():
        return
    begun = (folder / "run.yaml").exists()
    said = ["--resume", str(folder)] if begun else [*words, "--out", str(folder)]
    command = [sys.executable, "-m", "agentrl", "run", *said]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def steps(env: str, options: argparse.Namespace) -> int:
    return options.steps or STEPS[env]


def beginning(env: str, out: Path) -> list[str]:
    """Return what lets a run begin with the model that the env's warm-up leaves, made once."""
    if env == "deepsearch":
        return []
    folder = out / f"{env}-warm"
    agentrl(folder, "--env", env, "--algo", "grpo", "--steps", "0", *sets({"evaluation.tasks": 200}))
    return ["--model", str(folder / "warmup" / "model"), "--set", "warmup=0"]


def train(contender: Contender, env: str, seed: int, options: argparse.Namespace, begin: list[str]) -> Curve:
    """Return the curve of one run."""
    folder = options.out / f"{env}-{contender.name.replace(', ', '-').replace(' ', '-')}-{seed}"
    words = [
        "--env",
        env,
        "--algo",
        contender.algorithm,
        "--seed",
        str(seed),
        "--steps",
        str(steps(env, options)),
    ]
    further = [word for each in contender.settings for word in ("--set", each)]
    agentrl(folder, *words, *begin, *sets(COMMON), *further)
    return read_curve(contender, env, seed, folder)


def read_curve(contender: Contender, env: str, seed: int, folder: Path) -> Curve:
    metrics = read_lines(folder / "metrics.jsonl")
    played = [0, *accumulate(int(row["rollout/trajectories"]) for row in metrics)]
    rows = [row for row in read_lines(folder / "evaluations.jsonl") if row["step"] >= 0]
    success = [row["metrics"]["success"]["mean"] for row in rows]
    curve = Curve(contender, env, seed, [played[row["step"]] for row in rows], success)
    line = "  ".join(f"{x}:{y:.0%}" for x, y in zip(curve.trajectories, curve.success, strict=True))
    print(f"{env:<11} {contender.name:<19} seed {seed}  {line}", flush=True)
    return curve


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def main() -> None:
    options = arguments()
    chosen = [c for c in CONTENDERS if not options.only or c.name in options.only]
    unknown = set(options.only or ()) - {c.name for c in CONTENDERS}
    if unknown:
        raise SystemExit(f"no contender {unknown}; there are: {', '.join(c.name for c in CONTENDERS)}")
    begin = {env: beginning(env, options.out) for env in options.envs}
    work = [
        (contender, env, seed)
        for env in options.envs
        for seed in options.seeds
        for contender in chosen
        if not contender.envs or env in contender.envs
    ]
    with ThreadPoolExecutor(options.jobs) as pool:
        curves = list(pool.map(lambda job: train(*job, options, begin[job[1]]), work))
    budgets = {env: steps(env, options) * TASKS * SIZE for env in options.envs}
    write_report(curves, budgets, options.report)


if __name__ == "__main__":
    main()
