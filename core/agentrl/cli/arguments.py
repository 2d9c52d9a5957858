"""The arguments that `agentrl run` and `agentrl eval` share, and what they say about the configuration."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from agentrl.errors import UsageError

Env = Annotated[str | None, typer.Option("--env", help="Env to play, by name.")]
Agent = Annotated[str | None, typer.Option("--agent", help="Agent; by default the one the env suggests.")]
Rewards = Annotated[
    list[str] | None,
    typer.Option(
        "--reward", metavar="NAME[:WEIGHT]", help="Reward, in place of those the env suggests; repeatable."
    ),
]
Model = Annotated[
    str | None, typer.Option("--model", help="Model directory, hub name or model plugin; by default: tiny.")
]
Engine = Annotated[str | None, typer.Option("--engine", help="Engine that generates tokens.")]
Runtime = Annotated[
    str | None, typer.Option("--runtime", help="Where processes live: local, or ray on many machines.")
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Set any option, such as simulator.workers=4; repeatable."
    ),
]
Setup = Annotated[
    bool, typer.Option("--setup", help="Set up the env's virtual environment first, if it has one.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]


def parse_rewards(texts: Sequence[str]) -> dict[str, float]:
    """Return weight by name.

    Raises:
        UsageError: a weight is not a number.
    """
    rewards = {}
    for text in texts:
        name, colon, weight = text.partition(":")
        try:
            rewards[name] = float(weight) if colon else 1.0
        except ValueError as error:
            raise UsageError(f"--reward {text!r}: the weight {weight!r} is not a number") from error
    return rewards


def given(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags that were given."""
    return {name: value for name, value in flags.items() if value is not None}
