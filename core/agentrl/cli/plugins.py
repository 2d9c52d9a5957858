"""`agentrl plugins`: what is installed, by whom; `agentrl plugins NAME`: its options."""

from typing import TYPE_CHECKING, Annotated

import typer

from agentrl.cli import arguments
from agentrl.cli.errors import report
from agentrl.errors import AgentRLError

if TYPE_CHECKING:
    from rich.console import Console

    from agentrl.discovery import PluginInfo


def plugins(
    name: Annotated[str | None, typer.Argument(help="Show the options of the plugins of this name.")] = None,
    debug: arguments.Debug = False,
) -> None:
    """List the installed plugins, importing none; or show the options of one."""
    from agentrl.display import wide_console

    console = wide_console()
    try:
        _show_one(console, name) if name else _show_all(console)
    except AgentRLError as error:
        raise SystemExit(report(error, debug=debug)) from error


def _show_all(console: "Console") -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from agentrl.discovery import list_plugins

    table = Table("kind", "name", "distribution", "version", "", box=box.SIMPLE)
    for info in list_plugins():
        note = "disabled" if info.disabled else ""
        table.add_row(info.kind, escape(info.name), escape(info.distribution), info.version, note)
    console.print(table)


def _show_one(console: "Console", name: str) -> None:
    from agentrl.discovery import find_named

    for info in find_named(name):
        _show_options(console, info)


def _show_options(console: "Console", info: "PluginInfo") -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Column, Table

    from agentrl.cli.describe import describe

    plugin = describe(info)
    console.print(f"{info.kind} [bold]{escape(info.name)}[/]: {escape(plugin.summary)}")
    console.print(f"  {escape(info.target)}, from {escape(info.owner)}")
    if not plugin.options:
        console.print("  no options\n")
        return
    widest = max(len(option.key) for option in plugin.options)
    table = Table(Column("option", min_width=widest), "type", "default", "", box=box.SIMPLE)
    for option in plugin.options:
        table.add_row(*map(escape, (option.key, option.type, option.default, option.description)))
    console.print(table)
