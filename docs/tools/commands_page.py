"""Writes docs/commands.md: the commands, with their arguments and options, as `--help` says them."""

from collections.abc import Iterator
from typing import Any

import typer.main
from markdown_text import code, escaped, table

from agentrl.cli import app

INTRODUCTION = """\
# Commands

Written from the code by `python docs/tools`; a test fails when it is out of date.

Every command shows this with `--help`, and a traceback of what went wrong with `--debug`. It ends with 0, or
with 1 for a failure, 2 for wrong usage, 130 for Ctrl-C. Hook plugins may add commands; `agentrl --help` lists
those, too."""


def page() -> str:
    """Return the whole page."""
    root: Any = typer.main.get_command(app(["run"]))
    return "\n\n".join([INTRODUCTION, *described(root, "agentrl")]) + "\n"


def described(command: Any, name: str) -> Iterator[str]:
    """Yield what a command does and takes, and its sub-commands."""
    subcommands = getattr(command, "commands", {})
    if name != "agentrl":
        yield f"## {code(name)}"
        yield escaped(" ".join((command.help or "").split()))
        rows = [_row(parameter) for parameter in command.params if parameter.name not in ("help", "debug")]
        if rows:
            yield table(["argument or option", "what it is"], rows)
    for each, subcommand in subcommands.items():
        yield from described(subcommand, f"{name} {each}")


def _row(parameter: Any) -> list[str]:
    names = [parameter.name.upper()] if parameter.param_type_name == "argument" else parameter.opts
    return [", ".join(code(name) for name in names), escaped(getattr(parameter, "help", "") or "")]
