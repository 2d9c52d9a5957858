"""Loads plugins by name.

`discovery` says what is installed, by whom, and imports none of it; stevedore then imports the one plugin
that was named. So `agentrl plugins` is fast, and a broken plugin breaks only the run that names it. What any
number of plugins take part in at once is in `hooks`.
"""

import inspect
from collections.abc import Mapping
from importlib.metadata import Distribution, EntryPoint
from typing import Any, Literal, overload

from packaging.utils import canonicalize_name
from pydantic import BaseModel
from stevedore import DriverManager

from agentrl.discovery import (
    HOOK,
    PluginInfo,
    disabled_names,
    find_plugin,
    group_of,
    list_plugins,
    names,
    requirements_of,
)
from agentrl.errors import AgentRLError, PluginError
from agentrl.interfaces import (
    Agent,
    Algorithm,
    Curriculum,
    Engine,
    Env,
    Model,
    Plugin,
    Reward,
    Trainer,
)
from agentrl.options import check_options
from agentrl.runtime import Runtime

__all__ = [
    "BASES",
    "HOOK",
    "SUGGESTING",
    "PluginInfo",
    "disabled_names",
    "find_plugin",
    "group_of",
    "import_plugin",
    "list_plugins",
    "load",
    "make",
    "names",
    "option_prefix",
    "remedy",
]

# What a plugin of each kind has to be a subclass of.
BASES: Mapping[str, type[Plugin]] = {
    "env": Env,
    "agent": Agent,
    "reward": Reward,
    "algorithm": Algorithm,
    "engine": Engine,
    "trainer": Trainer,
    "curriculum": Curriculum,
    "model": Model,
    "runtime": Runtime,
}


# The kinds whose suggestions count; where two suggest the same, the later one wins.
SUGGESTING = ("env", "algorithm", "model", "agent", "trainer")


class _Driver(DriverManager):
    """Imports one plugin by name.

    Stevedore remembers the list of entry points, on disk and for the life of the process, and tells changed
    files apart only when they are minutes old: a plugin that was just installed would not be found.
    """

    def list_entry_points(self) -> list[EntryPoint]:
        """Return the entry points as they are now."""
        return [each.entry_point for each in list_plugins() if group_of(each.kind) == self.namespace]


def import_plugin(kind: str, name: str) -> Any:
    """Import the plugin `name` and return what its entry point names.

    Raises:
        PluginError: as `find_plugin`, or importing it failed.
    """
    info = find_plugin(kind, name)
    try:
        return _Driver(group_of(kind), name).driver
    except (Exception, SystemExit) as error:
        message = f"the {kind} {name!r} of {info.owner} could not be imported: {_cause(error)}"
        raise PluginError(message + remedy(error, kind, name)) from error


def _cause(error: BaseException) -> str:
    text = str(error).strip()
    return text if isinstance(error, ImportError) and text else f"{type(error).__name__}: {text}"


def remedy(error: BaseException, kind: str, name: str) -> str:
    """Return the end of a message about a module that is missing: the command that installs it, or ""."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    module = canonicalize_name(error.name.partition(".")[0])
    for info in list_plugins(kind):
        if info.name != name:
            continue
        if canonicalize_name(info.entry_point.module) == module:
            return f"; its files are missing, so install {info.distribution} again"
        if extra := _extra_with(module, info.entry_point.dist):
            return f"; install it with: pip install '{info.distribution}[{extra}]'"
    return f"; install what provides the module {error.name!r}"


def _extra_with(module: str, distribution: Distribution | None) -> str | None:
    """Return which of the distribution's extras brings `module`, for those named like their module."""
    extras = distribution.metadata.get_all("Provides-Extra") if distribution else None
    for extra in extras or ():
        for requirement in requirements_of(distribution):
            marker = requirement.marker
            if canonicalize_name(requirement.name) == module and marker and marker.evaluate({"extra": extra}):
                return str(extra)
    return None


@overload
def load(kind: Literal["env"], name: str) -> type[Env]: ...
@overload
def load(kind: Literal["agent"], name: str) -> type[Agent]: ...
@overload
def load(kind: Literal["reward"], name: str) -> type[Reward]: ...
@overload
def load(kind: Literal["algorithm"], name: str) -> type[Algorithm]: ...
@overload
def load(kind: Literal["engine"], name: str) -> type[Engine]: ...
@overload
def load(kind: Literal["trainer"], name: str) -> type[Trainer]: ...
@overload
def load(kind: Literal["curriculum"], name: str) -> type[Curriculum]: ...
@overload
def load(kind: Literal["model"], name: str) -> type[Model]: ...
@overload
def load(kind: Literal["runtime"], name: str) -> type[Runtime]: ...
@overload
def load(kind: str, name: str) -> type[Plugin]: ...
def load(kind: str, name: str) -> type[Plugin]:
    """Import the plugin `name` of a kind and return its class.

    Raises:
        PluginError: it is not installed, disabled, provided twice, made for another core version, broken, or
            not what its entry-point group says.
    """
    plugin = import_plugin(kind, name)
    problem = _not_a(BASES[kind], plugin)
    if problem:
        info = find_plugin(kind, name)
        raise PluginError(f"the {kind} {name!r} of {info.owner} cannot be used: {info.target} {problem}")
    chosen: type[Plugin] = plugin
    return chosen


def _not_a(base: type[Plugin], plugin: Any) -> str | None:
    """Return what keeps `plugin` from being a `base`."""
    if not (isinstance(plugin, type) and issubclass(plugin, base)):
        return f"is not a subclass of agentrl.{base.__name__}"
    if inspect.isabstract(plugin):
        return f"does not define {', '.join(sorted(getattr(plugin, '__abstractmethods__', ())))}"
    if not (isinstance(plugin.Config, type) and issubclass(plugin.Config, BaseModel)):
        return "has a Config that is not a subclass of agentrl.PluginConfig"
    if plugin.suggests and base not in {BASES[kind] for kind in SUGGESTING}:
        return f"has suggestions, which nobody would hear: only these kinds make any: {', '.join(SUGGESTING)}"
    return None


@overload
def make(kind: Literal["env"], name: str, options: Mapping[str, Any] = ...) -> Env: ...
@overload
def make(kind: Literal["agent"], name: str, options: Mapping[str, Any] = ...) -> Agent: ...
@overload
def make(kind: Literal["reward"], name: str, options: Mapping[str, Any] = ...) -> Reward: ...
@overload
def make(kind: Literal["algorithm"], name: str, options: Mapping[str, Any] = ...) -> Algorithm: ...
@overload
def make(kind: Literal["engine"], name: str, options: Mapping[str, Any] = ...) -> Engine: ...
@overload
def make(kind: Literal["trainer"], name: str, options: Mapping[str, Any] = ...) -> Trainer: ...
@overload
def make(kind: Literal["curriculum"], name: str, options: Mapping[str, Any] = ...) -> Curriculum: ...
@overload
def make(kind: Literal["model"], name: str, options: Mapping[str, Any] = ...) -> Model: ...
@overload
def make(kind: Literal["runtime"], name: str, options: Mapping[str, Any] = ...) -> Runtime: ...
def make(kind: str, name: str, options: Mapping[str, Any] | None = None) -> Plugin:
    """Import the plugin `name` and return an instance with these options.

    Raises:
        PluginError: as `load`, or its constructor failed.
        UsageError: an option is unknown or of the wrong type.
    """
    plugin = load(kind, name)
    config = check_options(plugin.Config, options or {}, f"{kind} {name!r}", option_prefix(kind, name))
    try:
        return plugin(config)
    except AgentRLError:
        raise
    except Exception as error:
        info = find_plugin(kind, name)
        message = f"the {kind} {name!r} of {info.owner} could not be made: {_cause(error)}"
        raise PluginError(message + remedy(error, kind, name)) from error


def option_prefix(kind: str, name: str) -> str:
    """Return what stands before the options of a plugin in run files and `--set`."""
    return {"reward": f"rewards.{name}", HOOK: f"hooks.{name}"}.get(kind, kind)
