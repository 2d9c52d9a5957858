"""Says which plugins are installed, by whom, and which can be used. Imports none of them."""

import os
import sys
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import Distribution, EntryPoint, entry_points

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import agentrl
from agentrl.errors import PluginError
from agentrl.options import nearest

HOOK = "hook"
KINDS = ("env", "agent", "reward", "algorithm", "engine", "trainer", "curriculum", "model", "runtime", HOOK)
CORE = "agentrl-platform"
DISABLE = "AGENTRL_DISABLE_PLUGINS"


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """What is known of a plugin without importing it.

    `requires` is the core version that its distribution asks for, "" if it does not say.
    """

    kind: str
    name: str
    target: str
    distribution: str
    version: str
    requires: str
    entry_point: EntryPoint = field(repr=False, compare=False)

    @property
    def owner(self) -> str:
        """Return who provides it, for messages."""
        return f"{self.distribution} {self.version}"

    @property
    def disabled(self) -> bool:
        """Return whether AGENTRL_DISABLE_PLUGINS names it."""
        return self.name in disabled_names()


def list_plugins(kind: str | None = None) -> list[PluginInfo]:
    """Return every installed plugin, or those of one kind, by kind and name. Imports none."""
    state = tuple((folder, _modified(folder)) for folder in sys.path)
    return [info for info in _scan(state) if kind in (None, info.kind)]


@lru_cache(maxsize=1)
def _scan(state: tuple[tuple[str, int], ...]) -> tuple[PluginInfo, ...]:
    """Read what is installed, once for each state of `sys.path`: it takes a while."""
    return tuple(
        _info(kind, entry_point)
        for kind in KINDS
        for entry_point in sorted(entry_points(group=group_of(kind)), key=lambda entry: entry.name)
    )


def _modified(folder: str) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:  # not everything on sys.path is there
        return 0


def find_named(name: str) -> list[PluginInfo]:
    """Return all plugins called `name`, of whatever kind.

    Raises:
        PluginError: there is none.
    """
    every = list_plugins()
    found = [info for info in every if info.name == name]
    if not found:
        close = nearest(name, {info.name for info in every})
        hint = f"did you mean {close!r}?" if close else "`agentrl plugins` lists what is installed"
        raise PluginError(f"no plugin {name!r}; {hint}")
    return found


def names(kind: str) -> list[str]:
    """Return the names of the installed plugins of `kind`, sorted. Imports none."""
    return sorted({info.name for info in list_plugins(kind)})


def group_of(kind: str) -> str:
    """Return the entry-point group in which plugins of `kind` announce themselves."""
    return "agentrl.curricula" if kind == "curriculum" else f"agentrl.{kind}s"


def _info(kind: str, entry_point: EntryPoint) -> PluginInfo:
    distribution = entry_point.dist
    return PluginInfo(
        kind=kind,
        name=entry_point.name,
        target=entry_point.value,
        distribution=distribution.name if distribution else "an unknown distribution",
        version=distribution.version if distribution else "",
        requires=_core_requirement(distribution),
        entry_point=entry_point,
    )


def disabled_names() -> frozenset[str]:
    """Return the names in AGENTRL_DISABLE_PLUGINS, a list with commas."""
    listed = os.environ.get(DISABLE, "").split(",")
    return frozenset(name.strip() for name in listed if name.strip())


def requirements_of(distribution: Distribution | None) -> list[Requirement]:
    """Return what a distribution requires, its extras included."""
    requirements = []
    for line in (distribution.requires if distribution else None) or ():
        try:
            requirements.append(Requirement(line))
        except InvalidRequirement:  # pip has its own opinion on such a line; it says nothing about the core
            continue
    return requirements


def _core_requirement(distribution: Distribution | None) -> str:
    for requirement in requirements_of(distribution):
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if applies and canonicalize_name(requirement.name) == CORE:
            return str(requirement.specifier)
    return ""


def find_plugin(kind: str, name: str) -> PluginInfo:
    """Return what is known of the plugin `name`, without importing it.

    Raises:
        PluginError: it is not installed, disabled, provided twice, or made for another core version.
    """
    found = [info for info in list_plugins(kind) if info.name == name]
    if not found:
        raise PluginError(_missing(kind, name))
    if found[0].disabled:
        raise PluginError(f"the {kind} {name!r} is disabled by {DISABLE}; take it out of that variable")
    if len(found) > 1:
        owners = " and ".join(f"{info.owner} ({info.target})" for info in found)
        raise PluginError(f"the {kind} {name!r} is provided by {owners}; uninstall all but one of them")
    _check_core_version(found[0])
    return found[0]


def obstacle(info: PluginInfo) -> str:
    """Return in a few words why a plugin cannot be used, as far as one sees without importing it, or ""."""
    if info.disabled:
        return "disabled"
    if sum(other.name == info.name for other in list_plugins(info.kind)) > 1:
        return "provided twice"
    return "" if _fits(info) else f"needs {CORE} {info.requires}"


def _missing(kind: str, name: str) -> str:
    every = list_plugins()
    known = sorted({info.name for info in every if info.kind == kind})
    others = [info.kind for info in every if info.name == name]
    close = nearest(name, known)
    message = f"no {kind} {name!r}"
    if close:
        message += f"; did you mean {close!r}?"
    elif others:
        message += f"; {name!r} is the name of a plugin of another kind: {', '.join(others)};"
    else:
        message += ";"
    return f"{message} installed: {', '.join(known) or 'none'}"


def _fits(info: PluginInfo) -> bool:
    return SpecifierSet(info.requires).contains(agentrl.__version__, prereleases=True)


def _check_core_version(info: PluginInfo) -> None:
    if not _fits(info):
        raise PluginError(
            f"the {info.kind} {info.name!r} of {info.owner} needs {CORE} {info.requires}, but this is "
            f"{agentrl.__version__}; install versions that fit one another"
        )
