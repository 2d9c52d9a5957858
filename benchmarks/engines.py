"""What does agentrl add to vLLM? The same requests through vLLM's own API and through the engine plugin.

    python benchmarks/engines.py                                   # two models, 1 and many turns, 5 rounds
    python benchmarks/engines.py --models tiny --places here --rounds 3 --size 0.25
    python benchmarks/engines.py --report docs/performance.md      # also writes the table there

Both sides get the same token ids in the same order, with the same seeds, log-probabilities and prefix cache
(see `engine_sides`), as many side by side, and must sample equally many tokens: no token ends a turn, and how
long each is was drawn before. "One turn" is a batch that is known from the beginning; in "many turns" each
of many conversations goes on, with all its ids, as soon as its last turn is there; a third time a string,
which never comes, would end turns, as agents have it. Here: vLLM in the process that asks, which is what
`engine.engines=0` does. Elsewhere: `AsyncLLM` against `engine.engines=1`, both in a process of their own. A
round is all talks of one side and then of the other, who goes first alternates, and ratios are within a
round. Needs vLLM (docs/engines.md); on a machine that is not quiet `--clock cpu`, which sees what is computed
here only.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import engine_sides
from engine_sides import NEVER, AgentRL, Played, Raw, RawElsewhere, Talks
from learning_report import put
from race import Side
from work import TEN_MILLION, write_model

TALKS = (
    Talks("one turn", 64, (1, 1), (100, 300), (0, 0), (16, 128)),
    Talks("many turns", 24, (3, 8), (100, 300), (20, 150), (8, 64)),
    Talks("many turns, a stop string", 24, (3, 8), (100, 300), (20, 150), (8, 64), (NEVER,)),
)
# For each place: vLLM's side and agentrl's.
PLACES: dict[str, tuple[Any, Any]] = {
    "here": (Raw, partial(AgentRL, engines=0)),
    "elsewhere": (RawElsewhere, partial(AgentRL, engines=1)),
}


def write_tiny(folder: Path) -> int:
    """Write the built-in model, without its ends of turns, and return how many weights it has."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    from agentrl_tiny import Tiny

    disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(Tiny().path())
    model.config.eos_token_id = model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(Tiny().path())
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    return model.num_parameters()


MODELS: dict[str, Callable[[Path], int]] = {
    "tiny": write_tiny,
    "random": partial(write_model, **TEN_MILLION),
}


@dataclass(frozen=True)
class Pair:
    """What both sides took for the same talks, round by round."""

    model: str
    place: str
    talks: Talks
    own: list[Played]
    peer: list[Played]

    def line(self, clock: str) -> str:
        """Return a line of the table."""
        ours, theirs = ([each.seconds[clock] for each in side] for side in (self.own, self.peer))
        added = [100 * (own / peer - 1) for own, peer in zip(ours, theirs, strict=True)]
        speeds = [
            median(each.sampled / each.seconds[clock] for each in side) for side in (self.peer, self.own)
        ]
        read, sampled = (median(getattr(each, part) for each in self.own) for part in ("read", "sampled"))
        tokens = f"{read:,.0f} + {sampled:,.0f}"
        spread = f"**{median(added):+.1f}%** ({min(added):+.1f}% to {max(added):+.1f}%)"
        words = [self.model, self.place, self.talks.name, tokens, f"{speeds[0]:,.0f}", f"{speeds[1]:,.0f}"]
        return f"| {' | '.join([*words, spread])} |"


HEAD = (
    "| model | vLLM | requests | tokens given + sampled | vLLM, tokens/s | agentrl, tokens/s "
    "| agentrl takes longer by |\n|---|---|---|---|---|---|---|"
)


class FreeSide(Side):
    """A side that may start processes of its own."""

    def __init__(self, *words: Any) -> None:
        """Take what a `Side` takes."""
        super().__init__(*words)
        self._process.daemon = False


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--places", nargs="+", default=list(PLACES), choices=PLACES)
    parser.add_argument("--rounds", type=int, default=5, help="that count, after one that does not")
    parser.add_argument("--size", type=float, default=1.0, help="how many conversations, times the usual")
    parser.add_argument("--threads", type=int, default=1, help="of vLLM")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--report", type=Path, help="Markdown file with the place for the table")
    options = parser.parse_args()
    if options.clock == "cpu" and "elsewhere" in options.places:
        parser.error("--clock cpu sees one process; say --places here")
    return options


def compare(model: str, place: str, folder: Path, options: argparse.Namespace) -> list[Pair]:
    """Return a pair for each kind of talks."""
    talks = [replace(each, number=max(1, round(each.number * options.size))) for each in TALKS]
    pairs = [Pair(model, place, each, [], []) for each in talks]
    raw, own = (partial(make, threads=options.threads) for make in PLACES[place])
    sides = [
        FreeSide(name, partial(engine_sides.serve, make=make), talks, folder, False)
        for name, make in (("vLLM", raw), ("agentrl", own))
    ]
    with sides[0], sides[1]:
        for index in range(options.rounds + 1):
            order = sides if index % 2 == 0 else sides[::-1]
            played: dict[Side, Sequence[Any]] = {side: side.step() for side in order}
            if not index:
                continue
            for pair, theirs, ours in zip(pairs, played[sides[0]], played[sides[1]], strict=True):
                check(theirs, ours)
                pair.peer.append(theirs)
                pair.own.append(ours)
    return pairs


def check(theirs: Played, ours: Played) -> None:
    if (theirs.read, theirs.sampled) != (ours.read, ours.sampled):
        raise SystemExit(f"vLLM sampled {theirs.sampled} tokens and agentrl {ours.sampled}")


def main() -> None:
    options = arguments()
    # Before torch is imported anywhere: its maths libraries read it once.
    os.environ |= {"OMP_NUM_THREADS": str(options.threads), "TRANSFORMERS_VERBOSITY": "error"}
    lines = []
    print(HEAD, flush=True)
    for model in options.models:
        with tempfile.TemporaryDirectory() as folder:
            weights = MODELS[model](Path(folder))
            name = f"{model}, {weights / 1e6:.1f} million"
            for place in options.places:
                lines += [pair.line(options.clock) for pair in compare(name, place, Path(folder), options)]
                print("\n".join(lines[-len(TALKS) :]), flush=True)
    if options.report is not None:
        put(["\n".join([HEAD, *lines])], options.report, "engines")


if __name__ == "__main__":
    main()
