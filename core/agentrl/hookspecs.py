"""The moments of a run that any number of plugins may take part in.

A hook is for what is not chosen by name: tracking, filtering, fault injection, an extra penalty. Every
argument is passed by keyword, and an implementation may leave out those it does not use. A plugin in
the entry-point group `agentrl.hooks` is a module with `@hookimpl` functions, or a `Plugin` class
with `@hookimpl` methods whose options are set by `--set hooks.NAME.OPTION=VALUE`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import typer

    from agentrl.config import RunConfig
    from agentrl.interfaces import Env
    from agentrl.types import Group, Task, Trajectory, Turn

NAMESPACE = "agentrl"

hookspec = pluggy.HookspecMarker(NAMESPACE)
hookimpl = pluggy.HookimplMarker(NAMESPACE)


@hookspec
def run_started(config: "RunConfig", folder: Path) -> None:
    """Take note that a run begins or is resumed in the run directory `folder`."""


@hookspec
def run_finished(error: BaseException | None) -> None:
    """Take note that the run is over; `error` is why, if it did not reach its end."""


@hookspec
def register_commands(app: "typer.Typer") -> None:
    """Add commands to `agentrl`."""


@hookspec
def wrap_env(env: "Env", task: "Task", seed: int) -> "Env | None":
    """Return an env to use in place of `env` for one episode, or None to leave it.

    Called in order of registration, each with what the one before returned.
    """


@hookspec
def agent_acted(task: "Task", turn: "Turn") -> None:
    """Take note of a turn, as soon as the agent has acted."""


@hookspec
def adjust_reward(trajectory: "Trajectory") -> float | None:
    """Return an amount to add to the reward of `trajectory`, or None; asked in training only."""


@hookspec
def keep_group(group: "Group") -> bool | None:
    """Return False to leave `group` out of the update. One False is enough."""


@hookspec
def step_finished(step: int, metrics: Mapping[str, float]) -> None:
    """Take note of an update and its metrics."""


@hookspec
def evaluated(step: int, metrics: Mapping[str, float]) -> None:
    """Take note of an evaluation on held-out tasks, named `eval/...`; step 0 is before training."""


@hookspec
def checkpoint_saved(step: int, path: Path) -> None:
    """Take note of a checkpoint that is complete on disk."""
