"""`agentrl plugins`: what is installed, by whom and from where; `agentrl plugins NAME`: its options."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from agentrl.cli import arguments
from agentrl.cli.errors import report
from agentrl.cli.get_plugins import install, search
from agentrl.errors import AgentRLError

if TYPE_CHECKING:
    from rich.console import Console

    from agentrl.discovery import PluginInfo


class _Names(TyperGroup):
    """Takes `agentrl plugins NAME` for `agentrl plugins show NAME`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return what is to be done; a plugin may be called like a command."""
        from agentrl.discovery import list_plugins

        known = args[0] in self.commands and len(args) > 1
        if not known and (args[0] not in self.commands or args[0] in {info.name for info in list_plugins()}):
            args = ["show", *args]
        return super().resolve_command(ctx, args)


commands = typer.Typer(
    cls=_Names,
    help="List the installed plugins, importing none; NAME shows the options of one.",
    invoke_without_command=True,
    subcommand_metavar="[NAME | COMMAND [ARGS]...]",
)


@commands.callback()
def plugins(context: typer.Context, debug: arguments.Debug = False) -> None:
    """List the installed plugins, importing none; NAME shows the options of one."""
    if context.invoked_subcommand is None:
        _reported(_show_all, debug=debug)


@commands.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of a plugin, of whatever kind.")],
    debug: arguments.Debug = False,
) -> None:
    """Show where the plugins of this name come from, and their options; imports them."""
    _reported(lambda console: _show_one(console, name), debug=debug)


commands.command()(search)
commands.command()(install)


def _reported(work: Any, *, debug: bool) -> None:
    from agentrl.display import wide_console

    try:
        work(wide_console())
    except AgentRLError as error:
        raise SystemExit(report(error, debug=debug)) from error


def _show_all(console: "Console") -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from agentrl.discovery import list_plugins, obstacle

    table = Table("kind", "name", "distribution", "version", "", box=box.SIMPLE)
    found = list_plugins()
    for info in found:
        table.add_row(
            info.kind, escape(info.name), escape(info.distribution), info.version, escape(obstacle(info))
        )
    console.print(table)
    console.print(_provenance(found))


def _provenance(found: "Iterable[PluginInfo]") -> Any:
    """Return a table of the distributions that plugins are from."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from agentrl.discovery import CORE
    from agentrl.provenance import provenance_of

    table = Table("distribution", "version", f"made for {CORE}", "installed by, from", box=box.SIMPLE)
    for info in {info.owner: info for info in found}.values():
        made_for = "itself" if info.distribution == CORE else info.requires or "any"
        source = str(provenance_of(info.entry_point.dist))
        table.add_row(escape(info.distribution), info.version, escape(made_for), escape(source))
    return table


def _show_one(console: "Console", name: str) -> None:
    from agentrl.discovery import find_named

    for info in find_named(name):
        _show_options(console, info)


def _show_options(console: "Console", info: "PluginInfo") -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Column, Table

    from agentrl.cli.describe import describe
    from agentrl.provenance import provenance_of

    plugin = describe(info)
    console.print(f"{info.kind} [bold]{escape(info.name)}[/]: {escape(plugin.summary)}")
    console.print(f"  {escape(info.target)}, from {escape(info.owner)}")
    console.print(f"  installed by {escape(str(provenance_of(info.entry_point.dist)))}")
    if not plugin.options:
        console.print("  no options\n")
        return
    widest = max(len(option.key) for option in plugin.options)
    table = Table(Column("option", min_width=widest), "type", "default", "", box=box.SIMPLE)
    for option in plugin.options:
        table.add_row(*map(escape, (option.key, option.type, option.default, option.description)))
    console.print(table)
