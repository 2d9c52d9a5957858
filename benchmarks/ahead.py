"""What does playing ahead gain, and what does it cost? Seconds an update and success, by staleness.

    python benchmarks/ahead.py                                   # staleness 0, 1, 2 and 4, three seeds
    python benchmarks/ahead.py --only speed --staleness 0 1
    python benchmarks/ahead.py --report docs/performance.md      # also writes the tables there

Speed: `deepsearch`, whose env answers after a known time, as one behind a network would (hook plugin
`chaos`). The ideal is the longer of the two phases, as the run that does not play ahead has them. The runs to
compare are made in turn, round by round, and ratios are within a round. Learning: the success of held-out
tasks before and after the same number of updates. Runs that are there already are not run again, and
`--records` keeps what was learnt.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from learning import agentrl, read_lines, sets
from learning_report import put
from records import add_option, recorded

COMMON = {"tasks_per_step": 8, "group_size": 8, "checkpoints.every": 0, "threads": 1}
# Updates at the beginning that are not timed, and those that are.
UNTIMED, TIMED = 3, 12


@dataclass(frozen=True)
class Timed:
    """Median seconds of an update of one run: until its episodes were there, and until it was done."""

    wait: float
    update: float

    @property
    def step(self) -> float:
        """Return the seconds of both."""
        return self.wait + self.update


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--staleness", type=int, nargs="+", default=[0, 1, 2, 4], help="begin with 0")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="of learning, rounds of speed"
    )
    parser.add_argument("--delay", type=float, default=0.25, help="seconds that the env takes for an answer")
    parser.add_argument("--steps", type=int, default=60, help="updates of the runs that learn")
    parser.add_argument("--only", choices=("learning", "speed"))
    parser.add_argument("--out", type=Path, default=Path("runs/ahead"))
    parser.add_argument("--report", type=Path, help="Markdown file with the places for the tables")
    add_option(parser)
    return parser.parse_args()


def timed(staleness: int, round_: int, options: argparse.Namespace) -> Timed:
    """Return how long an update takes."""
    folder = options.out / f"speed-{staleness}-{round_}"
    slow = {"evaluation.tasks": 1, "evaluation.every": 0, "hooks.chaos.delay": options.delay}
    settings = {**COMMON, **slow, "staleness": staleness, "steps": UNTIMED + TIMED}
    agentrl(folder, "--env", "deepsearch", "--algo", "grpo", "--seed", str(round_), *sets(settings))
    rows = read_lines(folder / "metrics.jsonl")[UNTIMED:]
    # Medians of the phases: who plays ahead waits long at one update and not at all at the next.
    total = fmean(row["time/rollout"] + row["time/update"] for row in rows)
    update = median(row["time/update"] for row in rows)
    return Timed(total - update, update)


def speed_table(options: argparse.Namespace) -> str:
    lines = [
        f"| staleness | seconds an update (env: {options.delay:g} s) | against 0 | against the ideal |",
        "|---|---|---|---|",
    ]
    rounds = [{lag: timed(lag, each, options) for lag in options.staleness} for each in options.seeds]
    for lag in options.staleness:
        ratios = [each[lag].step / each[0].step for each in rounds]
        ideals = [each[lag].step / max(each[0].wait, each[0].update) for each in rounds]
        seconds = median(each[lag].step for each in rounds)
        lines.append(f"| {lag} | {seconds:.1f} | {spread(ratios)} | {spread(ideals)} |")
    return "\n".join(lines)


def spread(ratios: Sequence[float]) -> str:
    return f"**{median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"


def learnt(staleness: int, seed: int, options: argparse.Namespace) -> tuple[float, float, float]:
    """Return success before and after, and the mean staleness of the tokens on the way."""
    name = f"learn-{staleness}-{seed}"
    settings = {**COMMON, "evaluation.every": 0, "staleness": staleness, "steps": options.steps}
    found = recorded(options, name, settings, lambda: learn(options.out / name, seed, settings))
    return found["before"], found["after"], found["lag"]


def learn(folder: Path, seed: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run came to, after making it if it is not there."""
    agentrl(folder, "--env", "deepsearch", "--algo", "grpo", "--seed", str(seed), *sets(settings))
    rows = {
        row["step"]: row["metrics"]["success"]["mean"] for row in read_lines(folder / "evaluations.jsonl")
    }
    lags = [row.get("staleness/mean", 0.0) for row in read_lines(folder / "metrics.jsonl")]
    found = {"before": rows[0], "after": rows[settings["steps"]], "lag": fmean(lags)}
    way = f"{found['before']:.1%} -> {found['after']:.1%}"
    print(f"{folder.name}: {way}, {found['lag']:.2f} updates late", flush=True)
    return found


def learning_table(options: argparse.Namespace) -> str:
    lines = [
        f"| staleness | success after {options.steps} updates | of tokens, on average |",
        "|---|---|---|",
    ]
    for lag in options.staleness:
        runs = [learnt(lag, seed, options) for seed in options.seeds]
        before, after, mean = (fmean(numbers) for numbers in zip(*runs, strict=True))
        ends = ", ".join(f"{run[1]:.1%}" for run in runs)
        lines.append(f"| {lag} | {before:.1%} → **{after:.1%}** ({ends}) | {mean:.2f} |")
    return "\n".join(lines)


def main() -> None:
    options = arguments()
    if options.staleness[0] != 0:
        raise SystemExit("--staleness begins with 0, which the others are compared with")
    ways = {"ahead: learning": learning_table, "ahead: speed": speed_table}
    for mark, way in ways.items():
        if options.only in (None, mark.rpartition(" ")[2]):
            made = way(options)
            print(f"\n{made}")
            if options.report is not None:
                put([made], options.report, mark)


if __name__ == "__main__":
    main()
