"""`agentrl new KIND NAME`: a small distribution with a plugin that works, to be made one's own."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from agentrl.cli import arguments
from agentrl.cli.errors import report
from agentrl.errors import AgentRLError


class Kind(StrEnum):
    """Kinds of which there is a template."""

    env = "env"
    agent = "agent"
    reward = "reward"
    algorithm = "algorithm"
    hook = "hook"
    engine = "engine"


def new(
    kind: Annotated[Kind, typer.Argument(help="What it is to be.")],
    name: Annotated[str, typer.Argument(help="How it is to be called, such as my_game.")],
    into: Annotated[
        Path | None, typer.Option("--into", help="Folder to write it into; by default: agentrl-NAME.")
    ] = None,
    debug: arguments.Debug = False,
) -> None:
    """Write a small distribution with a plugin that works, and a test that holds it to the rules."""
    from agentrl.scaffold import Blank

    try:
        blank = Blank.of(kind.value, name)
        folder = into or Path(blank.distribution)
        for path in blank.write(folder):
            typer.echo(f"wrote {path}")
    except AgentRLError as error:
        raise SystemExit(report(error, debug=debug)) from error
    steps = [f"cd {folder}", *blank.commands()]
    typer.echo("\n".join(["", "What to do next:", *(f"    {step}" for step in steps)]))
