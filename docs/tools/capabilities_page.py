"""Writes docs/capabilities.md: which plugins there are, and what works with what, as they declare it."""

import inspect
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import combinations
from combinations import NO, YES
from extras import extras
from markdown_text import code, codes, escaped, table
from pydantic import ValidationError
from reference_page import shipped

from agentrl import Algorithm, Env, PluginConfig, RemoteEnv, UsageError
from agentrl.assembly import check_needs
from agentrl.cli.describe import describe
from agentrl.config import resolve
from agentrl.discovery import KINDS
from agentrl.plugins import load, make
from agentrl.policy_gradient import PolicyGradient
from agentrl.types import Need

INTRODUCTION = """\
# What there is, and what works with what

Written from what the plugins declare by `python docs/tools`; a test fails when it is out of date.
`agentrl plugins` lists what is installed on your machine, plugins of others included."""
NEEDS = {
    "groups": "several trajectories of each task",
    "values": "a critic: `trainer.critic`",
    "reference": "the frozen model beside the actor",
    "logprobs": "log-probabilities of the trainer's own, before the update",
    "step_keys": "an env that names its states",
    "demonstrations": "what an expert wrote: `--warmup N` only",
}


def page() -> str:
    """Return the whole page."""
    parts = [INTRODUCTION, *plugins(), *envs(), *algorithms(), *matrices(), *combinations.sections()]
    return "\n\n".join(parts) + "\n"


# Which there are


def plugins() -> Iterator[str]:
    """Yield the section that lists all of them."""
    yield "## Plugins"
    yield (
        "Training needs the extra `torch`: `pip install 'agentrl-platform[torch]'`. Where a plugin can use "
        "what another extra brings, it is named. What can be set: [options](options.md)."
    )
    rows = [
        [info.kind, code(info.name), escaped(describe(info).summary), codes(extras(info))]
        for kind in KINDS
        for info in shipped(kind)
    ]
    yield table(["kind", "name", "what it is", "extra"], rows)


# Envs


def envs() -> Iterator[str]:
    """Yield the section on what each env is to be played with."""
    yield "## Envs"
    yield (
        "What an env suggests is what `agentrl run --env NAME` takes; any agent, reward, model and "
        "curriculum can be named instead."
    )
    head = ("env", "agent", "rewards", "model", "held out", "expert", "names states", "plays in")
    yield table(head, [_env_row(info.name, load("env", info.name)) for info in shipped("env")])
    yield (
        "An *expert* (`Env.demonstrate`) is what `--warmup N` imitates. Where an env *names states*, "
        "algorithms that credit single steps recognise them exactly, elsewhere by their texts. Splits that "
        "are *held out* are never trained on."
    )


def _env_row(name: str, env: type[Env]) -> list[str]:
    suggests = env.suggests
    return [
        code(name),
        code(str(suggests.get("agent", ""))),
        codes(suggests.get("rewards", {})),
        code(str(suggests.get("model", "tiny"))),
        codes(sorted(env.held_out_splits)),
        YES if env.demonstrate is not Env.demonstrate else NO,
        YES if "step_keys" in env.provides else NO,
        _place(env),
    ]


def _place(env: type[Env]) -> str:
    if issubclass(env, RemoteEnv):
        return "its own virtual environment" + (", sandboxed" if env.environment.sandbox else "")
    if any(base.__name__ == "BrowserEnv" for base in env.__mro__):
        return "a shared browser"
    return "this process, or workers"


# Algorithms


def algorithms() -> Iterator[str]:
    """Yield the section on what each algorithm needs."""
    yield "## Algorithms"
    yield table(["need", "what it is"], [[code(need), what] for need, what in NEEDS.items()])
    clipped = [load("algorithm", info.name) for info in shipped("algorithm")]
    shared = set.intersection(*(set(_further(each)) for each in clipped if issubclass(each, PolicyGradient)))
    yield (
        "What an algorithm needs says whether a run can start, and what it costs. All with the "
        f"[clipped loss](options.md#the-clipped-loss) also need, with {'; '.join(sorted(shared))}."
    )
    head = ("algorithm", "refines", "needs", "with an option, also", "hooks")
    yield table(
        head,
        [_algorithm_row(info.name, load("algorithm", info.name), shared) for info in shipped("algorithm")],
    )


def _algorithm_row(name: str, algorithm: type[Algorithm], shared: set[str]) -> list[str]:
    family = {load("algorithm", info.name): info.name for info in shipped("algorithm")}
    refined = [family[base] for base in algorithm.__mro__[1:] if base in family]
    hooks = [
        each for each in dir(algorithm) if hasattr(inspect.getattr_static(algorithm, each), "agentrl_impl")
    ]
    further = [each for each in _further(algorithm) if each not in shared]
    return [
        code(name),
        codes(refined[:1]),
        codes(sorted(algorithm().needs)),
        "; ".join(further),
        codes(hooks),
    ]


def _further(algorithm: type[Algorithm]) -> list[str]:
    return [f"{setting}: {codes(needs)}" for setting, needs in further_needs(algorithm)]


def further_needs(algorithm: type[Algorithm]) -> Iterator[tuple[str, list[str]]]:
    """Yield the values of options with which the algorithm needs more than by default, and what."""
    usual = algorithm().needs
    for name, field in algorithm.Config.model_fields.items():
        more: dict[tuple[str, ...], list[str]] = {}
        for value in _choices(field.annotation):
            config = _config_with(algorithm, name, value)
            if needs := config and tuple(sorted(algorithm(config).needs - usual)):
                more.setdefault(needs, []).append(str(value))
        yield from ((f"`{name}` {' or '.join(values)}", list(needs)) for needs, values in more.items())


def _config_with(algorithm: type[Algorithm], name: str, value: Any) -> PluginConfig | None:
    """Return options with this value, and with another one if that is wanted; None if it is not enough."""
    others = [{}, *({other: 0.5} for other in algorithm.Config.model_fields if other != name)]
    for other in others:
        try:
            return algorithm.Config(**{name: value}, **other)
        except ValidationError:  # they do not go together
            continue
    return None


def _choices(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return (True, False) if annotation is bool else ()


# What works with what


def matrices() -> Iterator[str]:
    """Yield the section on pairs."""
    yield "## What works with what"
    yield "### Algorithms and envs"
    yield (
        "Each pair was put to the check that `agentrl run` makes before it starts, all other options left as "
        "they are."
    )
    names = [info.name for info in shipped("env")]
    refusals: list[str] = []
    rows = [
        [code(info.name), *(_verdict(info.name, name, refusals) for name in names)]
        for info in shipped("algorithm")
    ]
    yield table(["algorithm", *map(code, names)], rows)
    yield combinations.numbered(refusals)
    yield "### Algorithms and trainers"
    yield "Whether a trainer says that it provides what the algorithm needs of it; what it lacks, if not."
    trainers = {info.name: load("trainer", info.name).provides for info in shipped("trainer")}
    yield table(
        ["algorithm", *map(code, trainers)],
        [
            [code(info.name), *(_lacking(info.name, provided) for provided in trainers.values())]
            for info in shipped("algorithm")
        ],
    )


def _verdict(algorithm: str, env: str, refusals: list[str]) -> str:
    """Return whether an algorithm works with an env, or the number of the reason why not."""
    try:
        config = resolve(flags={"env": env, "algorithm": algorithm})
        trainer = make("trainer", config.trainer.name, config.trainer.options)
        chosen = make("algorithm", algorithm, config.algorithm.options)
        check_needs(chosen, trainer, load("env", env), config)
    except UsageError as error:
        return combinations.noted(str(error), refusals)
    return YES


def _lacking(algorithm: str, provided: frozenset[Need]) -> str:
    """Return whether a trainer that provides this is enough for an algorithm, or what it lacks."""
    missing = make("algorithm", algorithm).needs - provided - {"groups", "step_keys"}
    return f"{NO}: {codes(sorted(missing))}" if missing else YES
