"""`agentrl tasks`: which tasks a run has played, and which of them taught something."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentrl.cli import arguments
from agentrl.cli.errors import report
from agentrl.errors import AgentRLError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from agentrl.task_record import Digest

_KINDS = ("difficulty", "scenario")


def tasks(
    folder: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Run whose tasks are shown.")],
    top: Annotated[
        int, typer.Option("--top", min=1, help="How many scenarios and tasks are shown at most.")
    ] = 20,
    debug: arguments.Debug = False,
) -> None:
    """Show which tasks a run has played, how they went, and how often they taught something."""
    from agentrl.display import wide_console

    try:
        _show(wide_console(), _rows(folder), top)
    except AgentRLError as error:
        raise SystemExit(report(error, debug=debug)) from error


def _rows(folder: Path) -> "list[dict[str, Any]]":
    from agentrl.rundir import load_tasks

    rows = load_tasks(folder)
    if not rows:
        raise UsageError(f"the run in {folder} has recorded no tasks: it has not finished an update yet")
    return rows


def _show(console: "Console", rows: "list[dict[str, Any]]", top: int) -> None:
    from agentrl.task_record import digest, labels_of, value_of

    (whole,) = digest(rows, ())
    console.print(
        f"steps {min(row['step'] for row in rows)} to {whole.last}: {whole.tasks} tasks in {whole.groups} "
        f"groups of {whole.trajectories} trajectories; a group taught something if its rewards differ"
    )
    kinds = [*_KINDS, *labels_of(rows)]
    told = [kind for kind in kinds if any(value_of(row, kind) is not None for row in rows)]
    for kind in told:
        found = digest(rows, [kind])
        if kind == "difficulty":
            found = sorted(found, key=lambda each: (each.key[0] is None, each.key))
        _print(console, f"by {kind}", [kind], found, top)
    _print(console, "most played tasks", ["task", *told], digest(rows, ["task", *told]), top)


def _print(console: "Console", title: str, names: "list[str]", found: "list[Digest]", top: int) -> None:
    from agentrl.tables import digest_table

    left_out = f" ({top} of {len(found)})" if len(found) > top else ""
    console.print(title + left_out)
    console.print(digest_table(names, found[:top]))
