"""Runs agentrl and TRL through the same work, turn about, and prints how they compare.

Each side is a process of its own that lives for all repeats, with the same number of torch threads; only one
works at a time, and who goes first alternates, so that whatever else slows the machine down slows both.
"""

import argparse
import importlib.util
import json
import math
import multiprocessing
import os
import platform
import shlex
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

from work import Measurement, Seconds, Work, write_model

OWN, PEER = "agentrl", "TRL"
Clock = Literal["wall", "cpu"]
_CLOCKS: tuple[Clock, ...] = ("wall", "cpu")
_NOTHING = Seconds(wall=0.0, cpu=0.0)


@dataclass(frozen=True, slots=True)
class Race:
    """The measurements of both sides, repeat by repeat."""

    work: Work
    own: list[Measurement]
    peer: list[Measurement]

    def seconds(self, part: str, clock: Clock) -> tuple[list[float], list[float]]:
        """Return what a part, "rollout", "update" or "step", took each side."""
        own, peer = ([_seconds(each, part, clock) for each in side] for side in (self.own, self.peer))
        return own, peer

    def ratios(self, part: str, clock: Clock) -> list[float]:
        """Return how many times longer TRL took, pair by pair."""
        own, peer = self.seconds(part, clock)
        return [theirs / ours for ours, theirs in zip(own, peer, strict=True)]


def arguments(description: str) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, nargs="+", default=[200, 1000, 4000], help="tokens, shared")
    parser.add_argument(
        "--groups",
        type=int,
        nargs="+",
        default=[2],
        help="in a step; one number for all prompts, or one for each",
    )
    parser.add_argument("--threads", type=int, default=2, help="of torch, each side")
    parser.add_argument("--repeats", type=int, default=3, help="steps that count, after one that does not")
    parser.add_argument("--peer-batch", type=int, help="trajectories that TRL trains on at once")
    parser.add_argument("--profile", action="store_true", help="show where agentrl spends its time instead")
    parser.add_argument(
        "--clock",
        choices=_CLOCKS,
        default="wall",
        help="cpu: of all cores together, for machines that are not quiet; use with --threads 1",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement there")
    options = parser.parse_args()
    if len(options.groups) not in (1, len(options.prompts)):
        parser.error("--groups takes one number, or one for each of --prompts")
    if not options.profile and importlib.util.find_spec("trl") is None:
        parser.exit(1, "TRL is not installed; it is what we race: pip install -e '.[laptop,bench]'\n")
    return options


def run(options: argparse.Namespace, update: bool, parts: Sequence[str]) -> None:
    """Race for every prompt length, print a line of each part as soon as it is known, write the JSON file."""
    command = f"python {shlex.join(sys.argv)}"
    threads = str(options.threads)
    # Before torch is imported anywhere: its maths libraries read these once.
    os.environ |= {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "TRANSFORMERS_VERBOSITY": "error"}
    groups = options.groups * (len(options.prompts) if len(options.groups) == 1 else 1)
    works = [Work(*each, threads=options.threads) for each in zip(options.prompts, groups, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        weights = write_model(Path(folder))
        print(f"$ {command}\n{weights:,} weights, float32; torch threads of each side: {threads}", flush=True)
        if options.profile:
            _profile(works, Path(folder), update)
            return
        races = _races(works, Path(folder), update, options, parts)
    if options.json:
        options.json.write_text(json.dumps(_document(races, command, parts), indent=1) + "\n")


def _profile(works: Sequence[Work], model: Path, update: bool) -> None:
    import agentrl_side

    for work in works:
        print(f"\nagentrl, shared prompt of {work.prompt}, one step; a profiled function is a slower one")
        agentrl_side.profile(work, model, update)


def _races(
    works: Sequence[Work], model: Path, update: bool, options: argparse.Namespace, parts: Sequence[str]
) -> list[Race]:
    print(f"\n{_HEADER}", flush=True)
    races = []
    for work in works:
        race = _race(work, model, update, options.repeats, options.peer_batch or _good_batch(work))
        _check(race)
        races.append(race)
        for part in parts:
            print(_line(race, part, options.clock), flush=True)
    unit = {"wall": "Seconds on the clock", "cpu": "Processor seconds of all threads"}[options.clock]
    print(f"\n{unit}: median (min..max) of {options.repeats}. Ratio: TRL's by agentrl's, pair by pair.")
    checked = ", ".join(f"{work.sampled:,}" for work in works)
    print(
        f"Checked: both sides sampled {checked} tokens a step{'; all losses are finite' if update else ''}."
    )
    return races


def _good_batch(work: Work) -> int:
    """Return how many trajectories TRL trains on at once.

    It makes no difference: an update took 1.26, 1.23, 1.22 and 1.30 s for 1, 2, 4 and 8 with 892 tokens each,
    and 14.2, 13.7 and 14.2 s for 1, 2 and 4 with 4692 tokens. So what fits well into memory.
    """
    sizes = [size for size in range(1, work.group_size + 1) if work.trajectories % size == 0]
    return max((size for size in sizes if size * work.length <= 8192), default=1)


def _race(work: Work, model: Path, update: bool, repeats: int, peer_batch: int) -> Race:
    import agentrl_side
    import trl_peer

    own = Side(OWN, agentrl_side.serve, work, model, update)
    peer = Side(PEER, partial(trl_peer.serve, batch_size=peer_batch), work, model, update)
    race = Race(work, [], [])
    with own, peer:
        own.step()
        peer.step()
        for repeat in range(repeats):
            pair = [(own, race.own), (peer, race.peer)]
            for side, measurements in pair if repeat % 2 == 0 else reversed(pair):
                measurements.append(side.step())
    return race


class Side:
    """A side in a process of its own."""

    def __init__(self, name: str, serve: Any, work: Work, model: Path, update: bool) -> None:
        """Take the function that serves."""
        self._name = name
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        arguments = {"work": work, "model": model, "update": update, "connection": other}
        self._process = context.Process(target=serve, kwargs=arguments, daemon=True)
        self._other = other

    def __enter__(self) -> "Side":
        """Start, and wait until it is ready."""
        self._process.start()
        self._other.close()
        try:
            self._connection.recv()
        except EOFError:
            raise SystemExit(f"{self._name} did not start; what it said is above") from None
        return self

    def __exit__(self, *failure: object) -> None:
        """Let it end, and see that it does."""
        with suppress(BrokenPipeError):
            self._connection.send(False)
        self._process.join(30)
        self._process.terminate()

    def step(self) -> Measurement:
        """Have it do a step."""
        try:
            self._connection.send(True)
            measurement: Measurement = self._connection.recv()
        except (EOFError, BrokenPipeError):
            raise SystemExit(f"{self._name} failed; what it said is above") from None
        return measurement


def _check(race: Race) -> None:
    for measurement in [*race.own, *race.peer]:
        if measurement["trained"] != race.work.sampled:
            raise SystemExit(
                f"{measurement['trained']} tokens were sampled where {race.work.sampled} are due"
            )
        if not math.isfinite(measurement["loss"] or 0.0):
            raise SystemExit("a loss is not finite")


_HEADER = (
    f"{'part':<8} {'prompt':>6} {'trajectories':>12} {'tokens':>7} {'unique':>7}"
    f"  {OWN:>20}  {PEER:>20}  {'ratio':>20}"
)


def _line(race: Race, part: str, clock: Clock) -> str:
    work = race.work
    own, peer = race.seconds(part, clock)
    total = work.trajectories * work.length
    return (
        f"{part:<8} {work.prompt:>6} {work.trajectories:>12} {total:>7} {work.unique:>7}"
        f"  {_spread(own, 's'):>20}  {_spread(peer, 's'):>20}  {_spread(race.ratios(part, clock), 'x'):>20}"
    )


def _spread(numbers: Sequence[float], unit: str) -> str:
    return f"{median(numbers):.2f}{unit} ({min(numbers):.2f}..{max(numbers):.2f})"


def _seconds(measurement: Measurement, part: str, clock: Clock) -> float:
    rollout, update = measurement["rollout"][clock], (measurement["update"] or _NOTHING)[clock]
    return {"rollout": rollout, "update": update, "step": rollout + update}[part]


def _document(races: list[Race], command: str, parts: Sequence[str]) -> dict[str, Any]:
    import torch
    import transformers
    import trl

    modules = {"torch": torch, "transformers": transformers, "trl": trl}
    versions = {name: module.__version__ for name, module in modules.items()}
    return {
        "command": command,
        "python": platform.python_version(),
        "versions": versions,
        "races": [
            {
                "work": asdict(race.work),
                "agentrl": race.own,
                "trl": race.peer,
                "ratio": {
                    clock: {part: median(race.ratios(part, clock)) for part in parts} for clock in _CLOCKS
                },
            }
            for race in races
        ],
    }
