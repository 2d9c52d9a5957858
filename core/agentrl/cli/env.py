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
    help="Play an env yourself; set up, show and remove the virtual environments that some envs need.",
    no_args_is_help=True,
)
Name = Annotated[str, typer.Argument(help="The env's name.")]


@commands.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def setup(
    context: typer.Context,
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="Begin anew, whatever is there.")] = False,
    debug: arguments.Debug = False,
) -> None:
    """Build the env's virtual environment, or what is missing of it.

    An env may have options of its own, to do more: `agentrl env status NAME` shows them.
    """
    try:
        _reporting(lambda console: _set_up(console, name, context.args, force=force), debug=debug)
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
def remove(
    name: Name,
    older: Annotated[bool, typer.Option("--older", help="Only those of older versions of the env.")] = False,
    debug: arguments.Debug = False,
) -> None:
    """Delete the env's virtual environments with their files, those of older versions included."""
    _reporting(lambda console: _remove(console, name, older=older), debug=debug)


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


def _set_up(console: "Console", name: str, more: list[str], *, force: bool) -> None:
    from agentrl.cli.setup_options import read_options
    from agentrl.hosting.elsewhere import set_up

    if name.startswith("-"):
        raise UsageError(f"name the env first: agentrl env setup NAME {name}")
    site = _site(name)
    options = read_options(site, more)
    if site.ready and not force and not options:
        console.print(f"the environment of {name} is set up in {site.folder}", soft_wrap=True, markup=False)
        _warn_of_sandbox(console, site)
        return
    with console.status("") as shown:
        each = _each_step(lambda text: console.print(text, soft_wrap=True, markup=False))

        def tell(number: int, total: int, title: str, line: str) -> None:
            each(number, total, title, line)
            from rich.markup import escape

            shown.update(escape(line[: console.width - 4]))

        set_up(site, options=options, force=force, report=tell)
    console.print(
        f"set up in {site.folder}; play it with: agentrl run --env {name}", soft_wrap=True, markup=False
    )
    _warn_of_sandbox(console, site)


def _warn_of_sandbox(console: "Console", site: "Site") -> None:
    """Say now what a run would refuse to start for."""
    from agentrl.hosting.elsewhere.sandbox import check

    if site.environment.sandbox is not None:
        try:
            check(site, site.environment.sandbox)
        except UsageError as error:
            console.print(f"but {error}", soft_wrap=True, markup=False)


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
    for row in _rows_of(_site(name)) if name else _rows():
        table.add_row(*map(escape, row))
    if table.row_count:
        console.print(table)
    else:
        console.print("no installed env needs a virtual environment of its own")
    if name:
        _show_options(console, _site(name))


def _show_options(console: "Console", site: "Site") -> None:
    from agentrl.cli.setup_options import describe_option

    for step in site.options.values():
        done = " (done)" if step.title in site.done else ""
        said = f"agentrl env setup {site.name} {describe_option(step)}{done}"
        console.print(said, soft_wrap=True, markup=False)


def _rows() -> "Iterator[tuple[str, ...]]":
    from agentrl.hosting.elsewhere import site_of
    from agentrl.plugins import names

    for name in names("env"):
        try:
            env = _remote(name)
            if env is not None:
                yield from _rows_of(site_of(env, name))
        except AgentRLError as error:
            yield name, "broken", "", "", str(error)


def _rows_of(site: "Site") -> "Iterator[tuple[str, ...]]":
    from agentrl.hosting.elsewhere import others_of, size_of

    yield _row(site)
    for other in others_of(site):
        size = f"{size_of(other) / 1e6:.0f} MB"
        yield site.name, "older version", size, str(other.folder), f"agentrl env remove {site.name} --older"


def _row(site: "Site") -> tuple[str, ...]:
    from agentrl.hosting.elsewhere import size_of

    if site.ready:
        return site.name, "ready", f"{size_of(site) / 1e6:.0f} MB", str(site.folder), ""
    command = f"agentrl env setup {site.name}"
    if site.done:
        state = f"{len(site.done)} of {len(site.titles)} steps done"
        return site.name, state, f"{size_of(site) / 1e6:.0f} MB", str(site.folder), command
    return site.name, "missing", "", str(site.folder), command


def _remove(console: "Console", name: str, *, older: bool) -> None:
    from agentrl.hosting.elsewhere import others_of
    from agentrl.hosting.elsewhere import remove as delete

    site = _site(name)
    sizes = {each.folder: delete(each) for each in [*([] if older else [site]), *others_of(site)]}
    removed = [f"removed {folder} ({size / 1e6:.0f} MB)" for folder, size in sizes.items() if size]
    nothing = "there is none of an older version" if older else f"there is nothing in {site.folder}"
    console.print("\n".join(removed) or nothing, soft_wrap=True, markup=False)
