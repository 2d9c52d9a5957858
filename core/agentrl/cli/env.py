"""`agentrl env`: the virtual environments of envs whose world needs one of its own."""

from typing import TYPE_CHECKING, Annotated

import typer

from agentrl.cli import arguments
from agentrl.cli.errors import INTERRUPTED, report
from agentrl.errors import AgentRLError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from agentrl.display import Display
    from agentrl.hosting.elsewhere import RemoteEnv, Site

commands = typer.Typer(
    help="Set up, show and remove the virtual environments that some envs need.", no_args_is_help=True
)
Name = Annotated[str, typer.Argument(help="The env's name.")]


@commands.command()
def setup(
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="Begin anew, whatever is there.")] = False,
    debug: arguments.Debug = False,
) -> None:
    """Build the env's virtual environment, or what is missing of it."""
    try:
        _reporting(lambda console: _set_up(console, name, force=force), debug=debug)
    except KeyboardInterrupt:
        typer.echo(f"stopped; go on with: agentrl env setup {name}", err=True)
        raise SystemExit(INTERRUPTED) from None


@commands.command()
def status(
    name: Annotated[str | None, typer.Argument(help="The env's name; all, if it is left out.")] = None,
    debug: arguments.Debug = False,
) -> None:
    """Show which virtual environments are set up, and where."""
    _reporting(lambda console: _show(console, name), debug=debug)


@commands.command()
def remove(name: Name, debug: arguments.Debug = False) -> None:
    """Delete the env's virtual environment with its files."""
    _reporting(lambda console: _remove(console, name), debug=debug)


def prepare_environment(name: str, display: "Display", *, setup: bool) -> None:
    """See to it that the env can play: set up its virtual environment if it has one and that is wanted.

    Raises:
        UsageError: it is missing, or `setup` is asked for an env that needs none.
        AgentRLError: it cannot be set up.
    """
    from agentrl.hosting.elsewhere import set_up, site_of

    env = _remote(name)
    if env is None:
        if setup:
            raise UsageError(f"the env {name!r} needs no virtual environment of its own; leave --setup out")
        return
    site = site_of(env, name)
    if setup and not site.ready:
        set_up(site, report=_each_step(lambda text: display.phase("set up", text)))
    site.require()


def _reporting(work: "Callable[[Console], None]", *, debug: bool) -> None:
    from agentrl.display import wide_console

    try:
        work(wide_console())
    except AgentRLError as error:
        raise SystemExit(report(error, debug=debug)) from error


def _remote(name: str) -> "type[RemoteEnv] | None":
    """Return the env's class if its world needs another virtual environment."""
    from agentrl.hosting.elsewhere import RemoteEnv
    from agentrl.plugins import load

    env = load("env", name)
    return env if issubclass(env, RemoteEnv) else None


def _site(name: str) -> "Site":
    from agentrl.hosting.elsewhere import site_of

    env = _remote(name)
    if env is None:
        raise UsageError(
            f"the env {name!r} needs no virtual environment of its own: it can be played as it is"
        )
    return site_of(env, name)


def _set_up(console: "Console", name: str, *, force: bool) -> None:
    from agentrl.hosting.elsewhere import set_up

    site = _site(name)
    if site.ready and not force:
        console.print(f"the environment of {name} is set up in {site.folder}", soft_wrap=True, markup=False)
        return
    with console.status("") as shown:
        each = _each_step(lambda text: console.print(text, soft_wrap=True, markup=False))

        def tell(number: int, total: int, title: str, line: str) -> None:
            each(number, total, title, line)
            from rich.markup import escape

            shown.update(escape(line[: console.width - 4]))

        set_up(site, force=force, report=tell)
    console.print(
        f"set up in {site.folder}; play it with: agentrl run --env {name}", soft_wrap=True, markup=False
    )


def _each_step(tell: "Callable[[str], None]") -> "Callable[[int, int, str, str], None]":
    """Return what tells when a step begins, and not what it prints."""

    def each(number: int, total: int, title: str, line: str) -> None:
        if not line:
            tell(f"[{number}/{total}] {title}")

    return each


def _show(console: "Console", name: str | None) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Column, Table

    where = Column("where", overflow="fold")
    table = Table("env", "state", "size", where, "what to do", box=box.SIMPLE)
    for row in [_row(_site(name))] if name else _rows():
        table.add_row(*map(escape, row))
    if table.row_count:
        console.print(table)
    else:
        console.print("no installed env needs a virtual environment of its own")


def _rows() -> "Iterator[tuple[str, ...]]":
    from agentrl.hosting.elsewhere import site_of
    from agentrl.plugins import names

    for name in names("env"):
        try:
            env = _remote(name)
            if env is not None:
                yield _row(site_of(env, name))
        except AgentRLError as error:
            yield name, "broken", "", "", str(error)


def _row(site: "Site") -> tuple[str, ...]:
    from agentrl.hosting.elsewhere import size_of

    if site.ready:
        return site.name, "ready", f"{size_of(site) / 1e6:.0f} MB", str(site.folder), ""
    command = f"agentrl env setup {site.name}"
    if site.done:
        state = f"{len(site.done)} of {len(site.titles)} steps done"
        return site.name, state, f"{size_of(site) / 1e6:.0f} MB", str(site.folder), command
    return site.name, "missing", "", str(site.folder), command


def _remove(console: "Console", name: str) -> None:
    from agentrl.hosting.elsewhere import remove as delete

    site = _site(name)
    freed = delete(site)
    said = f"removed {site.folder} ({freed / 1e6:.0f} MB)" if freed else f"there is nothing in {site.folder}"
    console.print(said, soft_wrap=True, markup=False)
