"""`agentrl plugins search` and `install`: what pip finds, and what it does, said beforehand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from shlex import join
from typing import TYPE_CHECKING, Annotated

import typer

from agentrl.cli import arguments
from agentrl.cli.errors import report
from agentrl.errors import AgentRLError, PluginError, UsageError

if TYPE_CHECKING:
    from agentrl.discovery import PluginInfo
    from agentrl.installer import Change, Where

LIMITS = (
    "No package index can be searched: pip can be asked for exact names only. A plugin NAME is looked for\n"
    "as agentrl-NAME, as `agentrl new` calls it; one that is called otherwise is not found."
)


Index = Annotated[
    str | None,
    typer.Option("--index-url", "-i", help="Package index, in place of the one that pip is set to."),
]
ExtraIndices = Annotated[
    list[str] | None, typer.Option("--extra-index-url", help="Further package index; repeatable.")
]
Links = Annotated[
    list[str] | None,
    typer.Option("--find-links", "-f", help="Folder or page with wheels to look in, too; repeatable."),
]


def search(
    names: Annotated[list[str], typer.Argument(help="Names of plugins, or of distributions.")],
    index_url: Index = None,
    extra_index_url: ExtraIndices = None,
    find_links: Links = None,
    debug: arguments.Debug = False,
) -> None:
    """Look for plugins by name: what is installed, and what pip could install. Changes nothing."""
    where = _where(index_url, extra_index_url, find_links)
    _reported(lambda: _search(names, where), debug=debug)


def install(
    names: Annotated[list[str] | None, typer.Argument(help="Names, folders, files or addresses.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    editable: Annotated[
        list[str] | None, typer.Option("--editable", "-e", help="Folder to install as it is; repeatable.")
    ] = None,
    upgrade: Annotated[bool, typer.Option("--upgrade", "-U", help="Take newer versions of these.")] = False,
    index_url: Index = None,
    extra_index_url: ExtraIndices = None,
    find_links: Links = None,
    debug: arguments.Debug = False,
) -> None:
    """Install plugins with the pip of the Python that runs; say beforehand what it will do, and ask."""
    options = ["--upgrade"] if upgrade else []
    folders = [part for folder in editable or () for part in ("--editable", folder)]
    request = Request(names or [], [*options, *folders], _where(index_url, extra_index_url, find_links))
    _reported(lambda: _install(request, ask=not yes), debug=debug)


@dataclass(frozen=True, slots=True)
class Request:
    """What pip is to install: by name or place, and by options; and where it is to look."""

    names: list[str]
    options: list[str]
    where: "Where"

    @property
    def arguments(self) -> list[str]:
        """Return what to give `pip install`."""
        return [*self.options, *self.names, *self.where.options()]

    @property
    def told_beforehand(self) -> bool:
        """Return whether pip can say what it would do without running code of the authors'."""
        from agentrl.installer import named

        wheels = all(named(each) or each.endswith(".whl") for each in self.names)
        return wheels and "--editable" not in self.options


def _where(index_url: str | None, extra: list[str] | None, links: list[str] | None) -> "Where":
    from agentrl.installer import Where

    return Where(index_url, tuple(extra or ()), tuple(links or ()))


def _reported(work: Callable[[], None], *, debug: bool) -> None:
    try:
        work()
    except AgentRLError as error:
        raise SystemExit(report(error, debug=debug)) from error


# Search


def _search(names: Sequence[str], where: "Where") -> None:
    from agentrl import installer

    wanted = list(dict.fromkeys(map(installer.distribution_named, names)))
    for name in names:
        _say_installed(name)
    installer.require_pip()
    typer.echo(LIMITS)
    typer.echo(f"pip looks in: {', '.join(installer.places(where)) or 'nothing'}")
    found = [name for name in wanted if _say_versions(name, where)]
    if not found:
        raise UsageError(f"pip finds no distribution {' or '.join(wanted)}")
    typer.echo(f"To install: agentrl plugins install {join([*found, *where.options()])}")


def _say_installed(name: str) -> None:
    from agentrl.discovery import list_plugins
    from agentrl.provenance import provenance_of

    for info in list_plugins():
        if name in (info.name, info.distribution):
            source = provenance_of(info.entry_point.dist)
            typer.echo(f"installed: {info.kind} {info.name} of {info.owner} ({source})")


def _say_versions(name: str, where: "Where") -> bool:
    from agentrl.installer import versions

    known = versions(name, where)
    if known:
        older = f", and {len(known) - 1} older, down to {known[-1]}" if known[1:] else ""
        typer.echo(f"pip finds: {name} {known[0]}{older}")
    return bool(known)


# Install


def _install(request: Request, *, ask: bool) -> None:
    from agentrl import installer
    from agentrl.discovery import list_plugins

    if not (request.names or "--editable" in request.options):
        raise UsageError("name what is to be installed: agentrl plugins install NAME")
    installer.require_pip()
    typer.echo(f"This is what will be run: {join(installer.command('install', *request.arguments))}")
    if not _say_plan(request):
        return
    if ask and not _agreed():
        raise UsageError("nothing was installed; --yes installs without asking")
    before = set(list_plugins())
    installer.install(request.arguments)
    _say_new([info for info in list_plugins() if info not in before])


def _agreed() -> bool:
    try:
        return typer.confirm("Run it?")
    except typer.Abort:  # there is nobody to ask, or Ctrl-C
        typer.echo()
        return False


def _say_plan(request: Request) -> bool:
    """Say what pip would install; return whether there is anything.

    Raises:
        UsageError: it would replace the core, or there is no such distribution.
    """
    from agentrl import installer
    from agentrl.discovery import CORE

    changes = installer.plan(request.arguments) if request.told_beforehand else None
    if changes is None:
        _require_known(request)
        typer.echo("What that installs cannot be told beforehand: not all of it is there as wheels, and")
        typer.echo("building one runs code of its author's.")
        return True
    if any(change.name == CORE and change.replaces for change in changes):
        raise UsageError(f"that would replace {CORE} itself; if you want that, do it with pip")
    typer.echo("\n".join(map(_line, changes)) or "There is nothing to do: all of it is installed already.")
    return bool(changes)


def _require_known(request: Request) -> None:
    from agentrl import installer

    for name in filter(None, map(installer.named, request.names)):
        if not installer.versions(name, request.where):
            places = ", ".join(installer.places(request.where))
            raise UsageError(f"there is no distribution {name}; pip looks in: {places}")


def _line(change: "Change") -> str:
    replaces = f", in place of {change.present}" if change.replaces else ""
    return f"  {change.name} {change.version}{replaces}, from {change.source}"


def _say_new(found: "Sequence[PluginInfo]") -> None:
    """Say which plugins there are now, and which of them cannot be used."""
    from agentrl.discovery import find_plugin

    if not found:
        typer.echo("No plugin is new: what was installed has none, or they were there before.")
    for info in found:
        typer.echo(f"new: {info.kind} {info.name} of {info.owner}; see `agentrl plugins {info.name}`")
        try:
            find_plugin(info.kind, info.name)
        except PluginError as error:
            typer.echo(f"  it cannot be used: {error}", err=True)
