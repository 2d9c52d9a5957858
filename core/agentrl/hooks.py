"""Lets hook plugins take part in a run, with types: pluggy itself returns Any.

One pluggy manager per run, never a global one. Every installed hook plugin (entry-point group
`agentrl.hooks`) is loaded, one by one, so that a taken name or a broken plugin is an error that says which.
"""

import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

import pluggy
from pydantic import BaseModel

from agentrl import hookspecs
from agentrl.errors import AgentRLError, PluginError
from agentrl.interfaces import Env, Plugin
from agentrl.options import check_options, suggestion
from agentrl.plugins import HOOK, disabled_names, find_plugin, import_plugin, list_plugins, option_prefix
from agentrl.types import Group, Task, Trajectory, Turn

if TYPE_CHECKING:
    import typer

    from agentrl.config import RunConfig

Options = Mapping[str, Mapping[str, Any]]


class Hooks:
    """The hook plugins of one run.

    Its methods are the hooks of `agentrl.hookspecs`; a plugin that raises stops the run with an error that
    names the plugin and the hook.
    """

    def __init__(
        self,
        options: Options | None = None,
        plugins: Iterable[object] = (),
        *,
        installed: bool = True,
        on_broken: Callable[[PluginError], None] | None = None,
    ) -> None:
        """Load the hook plugins.

        Args:
            options: by plugin name; checked against the plugin's `Config`.
            plugins: further objects or modules with `@hookimpl` functions, called first.
            installed: whether to load installed plugins.
            on_broken: told of an installed plugin that cannot be loaded; None raises.

        Raises:
            PluginError: a plugin is broken, provided twice, has an unknown hook or an argument that its hook
                does not have, or options are given for one that is not installed.
        """
        self._manager = pluggy.PluginManager(hookspecs.NAMESPACE)
        self._manager.add_hookspecs(hookspecs)
        for name in disabled_names():
            self._manager.set_blocked(name)
        if installed:
            self._load_installed(options or {}, on_broken)
        for plugin in plugins:
            self._register(plugin, _name_of(plugin))

    def invite(self, plugin: object, name: str) -> None:
        """Let `plugin`, which was chosen for something else, take part if it has `@hookimpl` methods."""
        marker = f"{hookspecs.NAMESPACE}_impl"
        if any(hasattr(getattr(type(plugin), each, None), marker) for each in dir(type(plugin))):
            self._register(plugin, name)

    @property
    def names(self) -> list[str]:
        """Return the names of the plugins that take part, in the order in which they are called."""
        return [name for name, plugin in reversed(self._manager.list_name_plugin()) if plugin is not None]

    def _load_installed(self, options: Options, on_broken: Callable[[PluginError], None] | None) -> None:
        names = {info.name for info in list_plugins(HOOK)} - disabled_names()
        for name in set(options) - names:
            find_plugin(HOOK, name)  # says what is wrong with it
        # Pluggy calls what was registered last first; this way plugins are called by name, a to z.
        for name in sorted(names, reverse=True):
            try:
                self._register(make_hook(name, options.get(name, {})), name)
            except PluginError as error:
                if on_broken is None:
                    raise
                on_broken(error)

    def _register(self, plugin: object, name: str) -> None:
        try:
            self._manager.register(plugin, name)
        except pluggy.PluginValidationError as error:
            raise PluginError(f"hook plugin {name!r}: {_wrong_argument(error)}") from error
        except ValueError as error:
            raise PluginError(f"two hook plugins are called {name!r}") from error
        try:
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            raise PluginError(self._unknown_hook(name, plugin)) from error
        if not self._manager.is_blocked(name) and not self._manager.get_hookcallers(plugin):
            raise PluginError(f"hook plugin {name!r} has no function marked with @agentrl.hookimpl")

    def _unknown_hook(self, name: str, plugin: object) -> str:
        known = _specifications()
        callers = self._manager.get_hookcallers(plugin) or []
        unknown = sorted(caller.name for caller in callers if caller.name not in known)
        what = f"hook plugin {name!r} implements {unknown[0]!r}, which is no hook"
        return f"{what}; {suggestion(unknown[0], known)}"

    def run_started(self, config: "RunConfig", folder: Path) -> None:
        """Tell the plugins that a run begins or is resumed in `folder`."""
        self._call("run_started", config=config, folder=folder)

    def run_finished(self, error: BaseException | None) -> None:
        """Tell the plugins that the run is over, and why if it did not reach its end."""
        self._call("run_finished", error=error)

    def register_commands(self, app: "typer.Typer") -> None:
        """Let the plugins add commands to `app`."""
        self._call("register_commands", app=app)

    def wrap_env(self, env: Env, task: Task, seed: int) -> Env:
        """Return `env` as the plugins have wrapped it, one after the other."""
        given = {"env": env, "task": task, "seed": seed}
        for implementation in reversed(self._manager.hook.wrap_env.get_hookimpls()):
            arguments = [given[argument] for argument in implementation.argnames]
            wrapped = self._guard("wrap_env", partial(implementation.function, *arguments))
            if wrapped is not None and not isinstance(wrapped, Env):
                owner = implementation.plugin_name
                raise PluginError(f"hook plugin {owner!r} returned {wrapped!r} from wrap_env, not an Env")
            given["env"] = wrapped or given["env"]
        return cast("Env", given["env"])

    def agent_acted(self, task: Task, turn: Turn) -> None:
        """Tell the plugins about a turn."""
        self._call("agent_acted", task=task, turn=turn)

    def adjust_reward(self, trajectory: Trajectory) -> float:
        """Return the sum of what the plugins add to the reward."""
        amounts = self._call("adjust_reward", trajectory=trajectory)
        for amount in amounts:
            if not _is_number(amount):
                who = self._implementers("adjust_reward")
                raise PluginError(f"{who} must return a finite number from adjust_reward, not {amount!r}")
        return float(sum(amounts))

    def keep_group(self, group: Group) -> bool:
        """Return False if any plugin does."""
        return all(self._call("keep_group", group=group))

    def step_finished(self, step: int, metrics: Mapping[str, float]) -> None:
        """Tell the plugins that an update is over."""
        self._call("step_finished", step=step, metrics=metrics)

    def evaluated(self, step: int, metrics: Mapping[str, float]) -> None:
        """Tell the plugins how an evaluation went."""
        self._call("evaluated", step=step, metrics=metrics)

    def checkpoint_saved(self, step: int, path: Path) -> None:
        """Tell the plugins that a checkpoint is complete on disk."""
        self._call("checkpoint_saved", step=step, path=path)

    def _call(self, hook: str, **arguments: Any) -> list[Any]:
        caller = getattr(self._manager.hook, hook)
        results: list[Any] = self._guard(hook, lambda: caller(**arguments))
        return results

    def _guard(self, hook: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except AgentRLError:  # already in the user's words
            raise
        except Exception as error:
            plugin = self._culprit(hook, error.__traceback__)
            raise AgentRLError(f"{plugin} failed in {hook}: {type(error).__name__}: {error}") from error

    def _culprit(self, hook: str, traceback: TracebackType | None) -> str:
        """Return whose implementation is in the traceback: pluggy does not tell."""
        implementations = getattr(self._manager.hook, hook).get_hookimpls()
        owners = {_code(each.function): each.plugin_name for each in implementations}
        while traceback:
            if traceback.tb_frame.f_code in owners:
                return f"hook plugin {owners[traceback.tb_frame.f_code]!r}"
            traceback = traceback.tb_next
        return self._implementers(hook)

    def _implementers(self, hook: str) -> str:
        implementations = getattr(self._manager.hook, hook).get_hookimpls()
        return "hook plugin " + " or ".join(repr(each.plugin_name) for each in implementations)


def make_hook(name: str, options: Mapping[str, Any]) -> object:
    """Import the hook plugin `name`: a module as it is, a class as an instance with its options.

    Raises:
        PluginError: it cannot be imported, or is neither a module nor a `Plugin` class.
        UsageError: an option is unknown or of the wrong type.
    """
    plugin = import_plugin(HOOK, name)
    config = hook_config(name, plugin, options)
    if inspect.ismodule(plugin):
        return plugin
    instance: object = plugin(config)
    return instance


def hook_config(
    name: str, plugin: Any, options: Mapping[str, Any], source: Callable[[str], str] = lambda key: ""
) -> BaseModel:
    """Return the options of a hook plugin as its `Config`; a module has none. `source` as in `check_options`.

    Raises:
        PluginError: it is neither a module nor a `Plugin` class.
        UsageError: an option is unknown or of the wrong type.
    """
    if inspect.ismodule(plugin):
        accepted: type[BaseModel] = Plugin.Config
    elif isinstance(plugin, type) and issubclass(plugin, Plugin):
        accepted = plugin.Config
    else:
        info = find_plugin(HOOK, name)
        raise PluginError(
            f"the hook {name!r} of {info.owner} cannot be used: {info.target} is neither a module "
            "nor a subclass of agentrl.Plugin"
        )
    return check_options(accepted, options, f"hook {name!r}", option_prefix(HOOK, name), source)


def _specifications() -> dict[str, Callable[..., Any]]:
    marker = f"{hookspecs.NAMESPACE}_spec"
    return {name: value for name, value in vars(hookspecs).items() if hasattr(value, marker)}


def _wrong_argument(error: pluggy.PluginValidationError) -> str:
    """Return pluggy's complaint in a sentence."""
    where = re.search(r"for hook '(\w+)'", str(error))
    wrong = re.search(r"Argument\(s\) \{(.*)\} are declared", str(error))
    if not (where and wrong):
        return " ".join(str(error).split())
    known = inspect.signature(_specifications()[where[1]]).parameters
    return f"{where[1]} has no argument {wrong[1]}; it has: {', '.join(known)}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _name_of(plugin: object) -> str:
    return str(getattr(plugin, "__name__", type(plugin).__name__))


def _code(function: Callable[..., Any]) -> object:
    return getattr(inspect.unwrap(function), "__code__", None)
