"""The command `agentrl graph`: shows what SALT makes, or would make, of the trajectories of a run.

A run with SALT is read with its own options, any other with the defaults. A penalty that was taken off the
rewards (`kl="reward"`) is not recorded, so advantages are shown without it.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from agentrl import AgentRLError, Group, UsageError, hookimpl
from agentrl.files import encode, to_json, write_bytes
from agentrl.options import nearest
from agentrl.records import load_groups
from agentrl.rundir import load_config
from agentrl_salt import SALT
from agentrl_salt.graph import Graph, make_graph
from agentrl_salt.page import make_page
from agentrl_salt.picture import draw

_WRITERS: dict[str, Callable[[Graph, str], str]] = {
    ".svg": draw,
    ".json": lambda graph, subtitle: to_json({"of": subtitle, **graph.to_json()}, indent=1) + "\n",
    ".html": make_page,
}


@hookimpl
def register_commands(app: typer.Typer) -> None:
    """Add `agentrl graph`."""
    app.command("graph")(graph)


def graph(
    folder: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Run whose trajectories are shown.")],
    step: Annotated[
        int | None, typer.Option("--step", help="Update they were played for; by default the last that fits.")
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="Task they are of; by default one whose rewards differ.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="File to write: .svg, .html or .json; by default graph.svg in the run."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Draw the graph of a task's trajectories, with the advantage that SALT gives each step."""
    path = out or folder / "graph.svg"
    if path.suffix not in _WRITERS:
        raise UsageError(f"--out {path} must end in one of {', '.join(_WRITERS)}")
    salt = _salt_of(folder)
    step, played = _find_group(folder, _recorded(folder, step), task)
    subtitle = f"step {step} of {folder.name}; {_describe(salt)}"
    text = _WRITERS[path.suffix](make_graph(played, salt), subtitle)
    write_bytes(path, encode(text), "the graph")
    typer.echo(f"wrote {path}: task {played.task.id}, {subtitle}")


def _salt_of(folder: Path) -> SALT:
    """Return SALT with the options of a run, or with the defaults if it had another algorithm."""
    algorithm = load_config(folder).algorithm
    return SALT(SALT.Config(**algorithm.options) if algorithm.name == "salt" else None)


def _describe(salt: SALT) -> str:
    """Return the options that tell which steps are the same."""
    config = salt.config
    history = "all" if config.history is None else config.history
    same = f"history {history}, keys {config.keys}, match {config.match}, visit {config.visit}"
    return f"base {config.base}, {same}" + ("" if config.include_next_state else ", next state ignored")


def _recorded(folder: Path, step: int | None) -> list[tuple[int, Path]]:
    """Return the steps to look at and their files, the last one first: `step`, or all for None."""
    names = [
        (re.fullmatch(r"step-(\d+)\.jsonl\.gz", path.name), path) for path in folder.glob("trajectories/*")
    ]
    found = sorted(((int(match[1]), path) for match, path in names if match), reverse=True)
    if not found:
        raise UsageError(f"the run in {folder} has recorded no trajectories: it has not finished an update")
    asked = [each for each in found if step in (None, each[0])]
    if not asked:
        raise UsageError(f"the run in {folder} has no step {step}; it has {found[-1][0]} to {found[0][0]}")
    return asked


def _find_group(folder: Path, recorded: list[tuple[int, Path]], task: str | None) -> tuple[int, Group]:
    """Return a step and a group of it: the last whose rewards differ, else the last; failures are left out.

    Raises:
        UsageError: the task was not played.
        AgentRLError: no trajectory has a turn.
    """
    names: set[str] = set()
    fallback = None
    for step, path in recorded:
        for group in load_groups(path):
            names.add(group.task.id)
            kept = Group(group.task, [each for each in group.trajectories if not each.failed])
            if task not in (None, group.task.id) or not any(each.turns for each in kept.trajectories):
                continue
            if len(set(kept.rewards)) > 1:
                return step, kept
            fallback = fallback or (step, kept)
    if fallback is None:
        raise _nothing_found(folder, recorded, task, names)
    return fallback


def _nothing_found(
    folder: Path, recorded: list[tuple[int, Path]], task: str | None, names: set[str]
) -> AgentRLError:
    """Return why there is nothing to draw."""
    where = f"step {recorded[0][0]}" if len(recorded) == 1 else f"the run in {folder}"
    if task is not None and task not in names:
        near = nearest(task, names)
        hint = f"did you mean {near!r}?" if near else f"agentrl tasks {folder} shows those that were"
        return UsageError(f"task {task!r} was not played in {where}; {hint}")
    what = f"task {task!r}" if task is not None else "any task"
    return AgentRLError(f"there is nothing to draw: no trajectory of {what} in {where} came to a turn")
