"""Finds out which engines, trainers and runtimes go together, by the checks that a run makes as it starts."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from unittest.mock import patch

from markdown_text import code, codes, escaped, table
from reference_page import shipped

import agentrl.extras
from agentrl import UsageError, plugins
from agentrl.assembly import check_needs, plan
from agentrl.config import resolve
from agentrl.runtime import Plan
from agentrl_ray.config import RayConfig
from agentrl_ray.placement import lay_out

RUN = {"env": "house", "algorithm": "grpo", "device": "cuda"}
SETTINGS = (
    "staleness=1",
    "engine.engines=2",
    "engine.in_flight=recompute",
    "engine.in_flight=keep",
    "trainer.ranks=2",
    "trainer.lora.rank=8",
    "simulator.workers=4",
)
# What has processes of its own.
CREWS = (
    (),
    ("trainer.ranks=2",),
    ("engine.engines=2",),
    ("engine.engines=2", "trainer.ranks=2"),
    ("engine.engines=2", "trainer.ranks=2", "engine.arguments.tensor_parallel_size=2"),
)
YES, NO = "yes", "no"
Pair = tuple[str, str]


def sections() -> Iterator[str]:
    """Yield the sections on engines and trainers, and on runtimes."""
    with patch.object(agentrl.extras, "find_spec", lambda package: True):
        yield from engines_and_trainers()
        yield from runtimes()


def pairs() -> list[Pair]:
    """Return every engine with every trainer."""
    return [(engine.name, trainer.name) for engine in shipped("engine") for trainer in shipped("trainer")]


def title(pair: Pair) -> str:
    """Return how an engine with a trainer is called in a table."""
    return " + ".join(map(code, pair))


def engines_and_trainers() -> Iterator[str]:
    """Yield the section on settings of engines and trainers."""
    yield "### Engines and trainers"
    yield (
        "Each was put to the check that `agentrl run` makes before it starts, as if all extras were "
        "installed. What shows only when a model is loaded is not in here."
    )
    refusals: list[str] = []
    rows = [
        [code(" ".join(sets)) or "as they are", *(verdict(pair, sets, refusals) for pair in pairs())]
        for sets in ((), *((setting,) for setting in SETTINGS))
    ]
    yield table(["engine + trainer", *map(title, pairs())], rows)
    yield numbered(refusals)
    yield together()


def together() -> str:
    """Say which settings exclude one another."""
    refused = [
        f"{code(first)} and {code(second)} with {title(pair)}"
        for pair in pairs()
        for first, second in combinations([each for each in SETTINGS if not refusal(pair, [each])], 2)
        if first.partition("=")[0] != second.partition("=")[0] and refusal(pair, [first, second])
    ]
    but = f", but for {'; '.join(refused)}" if refused else ""
    return f"Any two of these that engine and trainer take one by one, they take together{but}."


def runtimes() -> Iterator[str]:
    """Yield the section on what each runtime places."""
    yield "### Runtimes"
    yield (
        "How many processes of their own engine and trainer have, which the runtime places; all else is in "
        "the run's process. Env workers go with any of these."
    )
    names = [info.name for info in shipped("runtime")]
    refusals: list[str] = []
    rows = []
    for pair in pairs():
        for sets in CREWS:
            if not refusal(pair, sets):
                cells = [placed(runtime, asked(pair, sets), refusals) for runtime in names]
                rows.append([title(pair), codes(sets), *cells])
    yield table(["engine + trainer", "with", *map(code, names)], rows)
    yield numbered(refusals)


def asked(pair: Pair, sets: Sequence[str]) -> Plan:
    """Return what a run with an engine and a trainer asks of its runtime.

    Raises:
        UsageError: it would not start.
    """
    config = resolve(flags={**RUN, "engine": pair[0], "trainer": pair[1]}, sets=sets)
    engine = plugins.make("engine", pair[0], config.engine.options)
    trainer = plugins.make("trainer", pair[1], config.trainer.options)
    algorithm = plugins.make("algorithm", config.algorithm.name, config.algorithm.options)
    check_needs(algorithm, trainer, plugins.load("env", config.env.name), config)
    return plan(config, engine, trainer, "", None)


def refusal(pair: Pair, sets: Sequence[str]) -> str:
    """Return why a run would not start; "" if it would."""
    try:
        asked(pair, sets)
    except UsageError as error:
        return str(error)
    return ""


def verdict(pair: Pair, sets: Sequence[str], refusals: list[str]) -> str:
    """Return whether a run would start, or the number of the reason why not."""
    why = refusal(pair, sets)
    return noted(why, refusals) if why else YES


def placed(runtime: str, wanted: Plan, refusals: list[str]) -> str:
    """Return what a runtime would place, or the number of the reason why it would not.

    Only Ray refuses anything before it is started.
    """
    try:
        if runtime == "ray":
            lay_out(wanted, RayConfig(), nodes=2)
    except UsageError as error:
        return noted(str(error), refusals)
    counts = {"engine": wanted.engine.processes, "trainer": wanted.trainer.processes}
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count) or "nothing"


def noted(reason: str, refusals: list[str]) -> str:
    """Return the number of a reason, after it was added if it is new."""
    if reason not in refusals:
        refusals.append(reason)
    return f"{NO} ({refusals.index(reason) + 1})"


def numbered(refusals: Sequence[str]) -> str:
    """Return reasons as a list."""
    return "\n".join(f"{number}. {escaped(text)}" for number, text in enumerate(refusals, 1))
