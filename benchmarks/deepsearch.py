"""Does it learn? Success on held-out tasks, before and after, over several seeds.

    python benchmarks/deepsearch.py                        # deepsearch, grpo, seeds 0 1 2
    python benchmarks/deepsearch.py --seeds 0 1 --out runs/learning -- --steps 200

What follows `--` goes to `agentrl run` as it is. Prints three scores that are often mixed up: closed book
(the trained model answers without searching), the untrained agent, and the trained agent; then the curve of
every seed.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

CLOSED = ["--set", "agent.closed_book=true", "--set", "env.max_searches=0"]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--env", default="deepsearch")
    parser.add_argument("--algo", default="grpo")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/learning"))
    parser.add_argument("rest", nargs="*", help="further arguments of `agentrl run`, after --")
    return parser.parse_args()


def agentrl(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "agentrl", *words], check=True)


def train(env: str, algorithm: str, seed: int, out: Path, rest: list[str]) -> dict[str, Any]:
    folder = out / f"{env}-{algorithm}-{seed}"
    if not (folder / "summary.json").exists():
        agentrl("run", "--env", env, "--algo", algorithm, "--seed", str(seed), "--out", str(folder), *rest)
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def closed_book(env: str, folder: Path) -> float:
    """Return the success of a trained model that may not search."""
    report = folder / "closed-book.json"
    if not report.exists():
        agentrl("eval", str(folder), *CLOSED, "--out", str(report))
    return float(json.loads(report.read_text())["metrics"]["success"]["mean"])


def interval(estimate: dict[str, float]) -> str:
    return f"{estimate['mean']:6.1%} [{estimate['low']:.1%}, {estimate['high']:.1%}]"


def main() -> None:
    options = arguments()
    columns = "seed", "closed book", "untrained agent", "trained agent", "minutes"
    print("{:>4}  {:>11}  {:>24}  {:>24}  {:>7}  updates".format(*columns))
    finals, curves = [], {}
    for seed in options.seeds:
        summary = train(options.env, options.algo, seed, options.out, options.rest)
        folder = options.out / f"{options.env}-{options.algo}-{seed}"
        book = closed_book(options.env, folder) if options.env == "deepsearch" else float("nan")
        success = summary["metrics"]["success"]
        finals.append(success["after"]["mean"])
        curves[seed] = {int(step): point["success"] for step, point in summary["curve"].items()}
        print(
            f"{seed:>4}  {book:>11.1%}  {interval(success['before']):>24}  {interval(success['after']):>24}"
            f"  {summary['wall_seconds'] / 60:>7.1f}  {summary['steps']}"
        )
    print(
        f"mean of the trained agents: {fmean(finals):.1%}; held-out tasks each: {summary['held_out_tasks']}"
    )
    for seed, curve in curves.items():
        print(f"seed {seed}: " + "  ".join(f"{step}:{value:.0%}" for step, value in curve.items()))


if __name__ == "__main__":
    main()
