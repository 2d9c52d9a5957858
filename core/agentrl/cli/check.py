"""`agentrl check NAME`: the rules of `agentrl.testing` on an installed plugin, without pytest."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentrl.cli import arguments
from agentrl.cli.errors import report
from agentrl.errors import AgentRLError, UsageError

if TYPE_CHECKING:
    from agentrl.discovery import PluginInfo
    from agentrl.testing.rules import Verdict

KINDS = ("env", "agent", "reward", "algorithm", "curriculum", "engine", "hook")
# Arguments of the checks that are no plain values: for tests only.
_OF_TESTS = ("make", "report", "trajectories", "weights")


def check(
    name: Annotated[str, typer.Argument(help="The plugin's name.")],
    kind: Annotated[
        str | None, typer.Option("--kind", help="Its kind, where several plugins have that name.")
    ] = None,
    sets: arguments.Sets = None,
    how: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="KEY=VALUE",
            help="How to check, such as episodes=200 or seconds=60; repeatable.",
        ),
    ] = None,
    debug: arguments.Debug = False,
) -> None:
    """Hold an installed plugin to the rules of its kind, and say which it keeps."""
    try:
        kept = _check(name, kind, sets or [], how or [], debug=debug)
    except AgentRLError as error:
        raise SystemExit(report(error, debug=debug)) from error
    raise SystemExit(0 if kept else 1)


def _check(name: str, kind: str | None, sets: Sequence[str], how: Sequence[str], *, debug: bool) -> bool:
    """Print each verdict, and return whether all rules were kept."""
    import agentrl.testing
    from agentrl.testing import RulesBroken

    info = _find(name, kind)
    make, usual = _maker(info, _options(info, sets))
    hold: Callable[..., None] = getattr(agentrl.testing, f"check_{info.kind}")
    arguments_ = _arguments(hold, usual, how)
    typer.echo(f"{info.kind} {info.name} of {info.owner}")
    told = _Told()
    try:
        hold(make, report=told, **arguments_)
    except RulesBroken as broken:
        if debug:
            _print_causes(broken)
    typer.echo(told.summary())
    return not told.failed


def _find(name: str, kind: str | None) -> "PluginInfo":
    """Return the plugin that is meant.

    Raises:
        UsageError: there is none, there are several, or its kind has no rules.
    """
    from agentrl.discovery import find_named, find_plugin

    kinds = [kind] if kind else sorted({info.kind for info in find_named(name)})
    if len(kinds) > 1:
        raise UsageError(
            f"{name!r} is the name of several plugins; choose one with --kind: {', '.join(kinds)}"
        )
    if kinds[0] not in KINDS:
        raise UsageError(f"there are no rules for a {kinds[0]}; there are for: {', '.join(KINDS)}")
    return find_plugin(kinds[0], name)


def _options(info: "PluginInfo", sets: Sequence[str]) -> dict[str, Any]:
    """Return what was set of the plugin's options.

    Raises:
        UsageError: something else was set.
    """
    from agentrl.plugins import option_prefix
    from agentrl.settings import Settings, parse_sets

    prefix = option_prefix(info.kind, info.name)
    tree = Settings.of(parse_sets(sets)).tree()
    place: Any = tree
    *path, last = prefix.split(".")
    for part in path:
        place = place.get(part, {})
    options: dict[str, Any] = place.pop(last, {})
    if place or (path and set(tree) - set(path[:1])):
        raise UsageError(
            f"--set is for options of the {info.kind} {info.name!r} here, which begin with {prefix}, "
            f"such as --set {prefix}.KEY=VALUE"
        )
    return options


def _maker(info: "PluginInfo", options: dict[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    """Return what makes the plugin with these options, and how it wants to be checked."""
    from agentrl.hooks import hook_config
    from agentrl.options import check_options
    from agentrl.plugins import HOOK, import_plugin, load, option_prefix

    plugin: Any
    if info.kind == HOOK:
        plugin = import_plugin(HOOK, info.name)
        config = hook_config(info.name, plugin, options)
    else:
        plugin = load(info.kind, info.name)
        prefix = option_prefix(info.kind, info.name)
        config = check_options(plugin.Config, options, f"{info.kind} {info.name!r}", prefix)
        _require_environment(plugin, info.name)
    return partial(plugin, config) if options else plugin, getattr(plugin, "checked_with", {})


def _require_environment(plugin: type, name: str) -> None:
    """Refuse an env whose virtual environment is not set up, and say what sets it up."""
    from agentrl.hosting.elsewhere import RemoteEnv, site_of

    if issubclass(plugin, RemoteEnv):
        site_of(plugin, name).require()


def _arguments(hold: Callable[..., None], usual: Mapping[str, Any], how: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of a check: those given, above those that the plugin wants.

    Raises:
        UsageError: there is no such argument, or it is of another type.
    """
    from pydantic import create_model

    from agentrl.interfaces import PluginConfig
    from agentrl.options import check_options
    from agentrl.settings import parse_set

    given = dict(parse_set(text) for text in how)
    fields: dict[str, Any] = {
        name: (parameter.annotation, parameter.default)
        for name, parameter in inspect.signature(hold).parameters.items()
        if name not in _OF_TESTS
    }
    accepted = create_model("With", __base__=PluginConfig, **fields)
    checked = check_options(accepted, given, "--with", "")
    return {**usual, **{key: getattr(checked, key) for key in given}}


class _Told:
    """Prints verdicts as they come, and counts them."""

    def __init__(self) -> None:
        self.passed = self.skipped = self.failed = 0
        self._said: set[str] = set()

    def __call__(self, verdict: "Verdict") -> None:
        """Print a verdict."""
        if verdict.broken is not None:
            self.failed += 1
            self._tell_broken(verdict)
        elif verdict.skipped is not None:
            self.skipped += 1
            typer.echo(f"  skipped  {verdict.rule}: {verdict.skipped}")
        else:
            self.passed += 1
            typer.echo(f"  passed   {verdict.rule}")

    def _tell_broken(self, verdict: "Verdict") -> None:
        broken = verdict.broken
        if str(broken) in self._said:
            typer.echo(f"  FAILED   {verdict.rule}: as above")
            return
        self._said.add(str(broken))
        assert broken is not None
        typer.echo(f"  FAILED   {verdict.rule}: {broken.found}\n           what to do: {broken.remedy}")

    def summary(self) -> str:
        """Return how many there were."""
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.passed} passed{skipped}{failed}"


def _print_causes(broken: Any) -> None:
    import traceback

    for rule in broken.broken:
        if rule.__cause__ is not None:
            traceback.print_exception(rule.__cause__)
