"""Shows how a run goes: live where there is a terminal, a line per update elsewhere.

`Display` shows nothing, for Python users; `make_display` chooses for the command line.
"""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

if TYPE_CHECKING:
    from agentrl.evaluation import Evaluation

# What is shown of an update's metrics, in this order; all of them are in metrics.jsonl.
_COLUMNS = {
    "reward": "reward",
    "success": "success",
    "policy/entropy": "entropy",
    "trainer/entropy": "entropy",
    "entropy": "entropy",
    "failed": "failed",
}
_ROWS = 10
_WIDEST = 120
# What is shown of an evaluation while the run goes on.
_MEASURES = ("reward", "success")


class Display:
    """Shows nothing, but remembers the run's folder."""

    folder: Path | None = None

    def __enter__(self) -> "Display":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop showing."""

    def started(self, config: str, folder: Path) -> None:
        """Show the configuration and where the run is kept."""
        self.folder = folder

    def phase(self, name: str, detail: str) -> None:
        """Show what is being done."""

    def episodes(self, done: int, total: int) -> None:
        """Show how many episodes are over."""

    def step(self, step: int, total: int, metrics: Mapping[str, float]) -> None:
        """Show an update."""

    def evaluated(self, step: int, evaluation: "Evaluation") -> None:
        """Show an evaluation on held-out tasks."""

    def warn(self, text: str) -> None:
        """Show what somebody should know; may be called from any thread."""

    def note(self, text: str) -> None:
        """Show what is good to know; may be called from any thread."""

    def finished(self, summary: Mapping[str, Any]) -> None:
        """Show every metric before and after."""


class PlainDisplay(Display):
    """Writes lines, for logs and pipes."""

    def __init__(self, console: Console | None = None, errors: Console | None = None) -> None:
        """Take where to write; None means standard output and standard error."""
        self.console = console or wide_console()
        self._errors = errors or Console(stderr=True, highlight=False, soft_wrap=True)
        self._clock = Clock()
        self._phase = ""

    def started(self, config: str, folder: Path) -> None:
        """Write the configuration."""
        super().started(config, folder)
        for line in config.splitlines():
            self._write(line if len(line) <= _WIDEST else f"{line[: _WIDEST - 3]}...")
        self._write(f"run directory: {folder}")

    def phase(self, name: str, detail: str) -> None:
        """Write what is being done."""
        self._write(f"{name}: {detail}")

    def step(self, step: int, total: int, metrics: Mapping[str, float]) -> None:
        """Write an update."""
        self._clock.tick()
        numbers = "  ".join(f"{name} {value:.3f}" for name, value in chosen(metrics).items())
        self._write(f"step {step}/{total}  {numbers}  {self._clock.describe(total - step)}")

    def evaluated(self, step: int, evaluation: "Evaluation") -> None:
        """Write an evaluation."""
        found = {name: evaluation.metrics[name] for name in _MEASURES if name in evaluation.metrics}
        numbers = "  ".join(
            f"{name} {value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]" for name, value in found.items()
        )
        self._write(f"step {step}, {evaluation.tasks} held-out tasks of {evaluation.split}:  {numbers}")
        self._clock.restart()

    def warn(self, text: str) -> None:
        """Write a warning to standard error."""
        self._errors.print(f"warning: {text}", markup=False)

    def note(self, text: str) -> None:
        """Write a note to standard error."""
        self._errors.print(f"note: {text}", markup=False)

    def finished(self, summary: Mapping[str, Any]) -> None:
        """Write the table."""
        self._write(summary_title(summary))
        self.console.print(summary_table(summary))
        if self.folder:
            self._write(f"run directory: {self.folder}")

    def _write(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)


class LiveDisplay(PlainDisplay):
    """Keeps a table of the last updates and a progress bar at the bottom of the terminal."""

    def __init__(self, console: Console | None = None) -> None:
        """Take the terminal."""
        super().__init__(console)
        self._errors = self.console
        self._rows: list[dict[str, str]] = []
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}"),
            console=self.console,
        )
        self._steps = self._progress.add_task("updates", total=None, visible=False, detail="")
        self._episodes = self._progress.add_task("episodes", total=None, visible=False, detail="")
        self._live = Live(console=self.console, get_renderable=self._render, refresh_per_second=4)

    def __enter__(self) -> "LiveDisplay":
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave what is shown on the screen."""
        self._progress.update(self._episodes, visible=False)
        self._live.stop()

    def phase(self, name: str, detail: str) -> None:
        """Show what is being done beside the episodes."""
        self._progress.update(self._episodes, description=escape(name), detail=escape(detail), visible=True)

    def episodes(self, done: int, total: int) -> None:
        """Move the bar of episodes."""
        self._progress.update(self._episodes, completed=done, total=total, visible=True)

    def step(self, step: int, total: int, metrics: Mapping[str, float]) -> None:
        """Add a row and move the bar of updates."""
        self._clock.tick()
        numbers = {name: f"{value:.3f}" for name, value in chosen(metrics).items()}
        self._rows = [*self._rows, {"step": str(step), **numbers, "seconds": f"{self._clock.last:.1f}"}][
            -_ROWS:
        ]
        left = self._clock.describe(total - step)
        self._progress.update(self._steps, completed=step, total=total, visible=True, detail=left)
        self._progress.update(self._episodes, description="episodes", detail="", completed=0)

    def finished(self, summary: Mapping[str, Any]) -> None:
        """Take the bars away and show the table."""
        self._rows = []
        self._progress.update(self._steps, visible=False)
        self._progress.update(self._episodes, visible=False)
        super().finished(summary)

    def _render(self) -> Group:
        return Group(_steps_table(self._rows), self._progress) if self._rows else Group(self._progress)


def wide_console() -> Console:
    """Return standard output; where it is no terminal, lines may be longer than a terminal's."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=120)


def make_display() -> Display:
    """Return the display that fits standard output."""
    return LiveDisplay() if sys.stdout.isatty() else PlainDisplay()


class Clock:
    """Tells how long updates take, and how long the rest of them will."""

    def __init__(self) -> None:
        """Start now."""
        self.restart()
        self._mean: float | None = None
        self.last = 0.0

    def restart(self) -> None:
        """Leave out the time until now."""
        self._before = time.monotonic()

    def tick(self) -> None:
        """Take note that an update is over."""
        now = time.monotonic()
        self.last, self._before = now - self._before, now
        # Recent updates count more: answers get longer or shorter as the model learns.
        self._mean = self.last if self._mean is None else 0.9 * self._mean + 0.1 * self.last

    def describe(self, updates_left: int) -> str:
        """Return the seconds of the last update and of those that are left."""
        left = (self._mean or 0.0) * updates_left
        return f"{self.last:.1f} s, {duration(left)} left" if updates_left > 0 else f"{self.last:.1f} s"


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def chosen(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics worth showing."""
    return {
        label: metrics[name]
        for name, label in _COLUMNS.items()
        if name in metrics and (name != "failed" or metrics[name] > 0)
    }


def evaluation_title(evaluation: "Evaluation") -> str:
    """Return what one evaluation is of."""
    title = f"{evaluation.tasks} tasks of {evaluation.split}, {evaluation.trajectories} episodes"
    return f"{title}, {evaluation.failed} of them failed and left out" if evaluation.failed else title


def evaluation_table(evaluation: "Evaluation") -> Table:
    """Return the table of one evaluation."""
    table = Table("metric", "mean", "95% interval", box=box.SIMPLE)
    for name, value in evaluation.metrics.items():
        table.add_row(escape(name), f"{value.mean:.3f}", f"{value.low:.3f} to {value.high:.3f}")
    return table


def summary_title(summary: Mapping[str, Any]) -> str:
    """Return what the table of a summary is of."""
    return (
        f"{summary['held_out_tasks']} held-out tasks of {summary['split']}, before and after "
        f"{summary['steps']} updates in {duration(summary['wall_seconds'])}; means with 95% intervals"
    )


def summary_table(summary: Mapping[str, Any]) -> Table:
    """Return the table *before to after* of a run's summary."""
    table = Table("metric", "before", "after", box=box.SIMPLE)
    for name, pair in summary["metrics"].items():
        table.add_row(escape(name), _interval(pair["before"]), _interval(pair["after"]))
    return table


def _steps_table(rows: list[dict[str, str]]) -> Table:
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(*names, box=box.SIMPLE)
    for row in rows:
        table.add_row(*(row.get(name, "") for name in names))
    return table


def _interval(value: Mapping[str, float] | None) -> str:
    if value is None:
        return "-"
    return f"{value['mean']:.3f} \\[{value['low']:.3f}, {value['high']:.3f}]"
