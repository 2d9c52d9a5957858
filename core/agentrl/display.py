"""Shows how a run goes: live where there is a terminal, a line per update elsewhere.

`Display` shows nothing, for Python users; `make_display` chooses for the command line.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from agentrl.placement_tables import device_lines, seats_table
from agentrl.tables import Clock, busy_chart, busy_marks, chosen, steps_table, summary_table, summary_title

if TYPE_CHECKING:
    from agentrl.early_signs import Beside
    from agentrl.evaluation import Evaluation
    from agentrl.placement import Placement

_ROWS = 10
_WIDEST = 120
# What is shown of an evaluation while the run goes on.
_MEASURES = ("reward", "success", "scenario_success")


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

    def placed(self, placement: "Placement") -> None:
        """Show what sits where, and how much memory that is to take."""

    def phase(self, name: str, detail: str) -> None:
        """Show what is being done."""

    def episodes(self, done: int, total: int) -> None:
        """Show how many episodes are over."""

    def step(self, step: int, total: int, metrics: Mapping[str, float]) -> None:
        """Show an update."""

    def evaluated(self, step: int, evaluation: "Evaluation", beside: "Beside") -> None:
        """Show an evaluation on held-out tasks, and the reward of training beside it."""

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

    def placed(self, placement: "Placement") -> None:
        """Write what sits where; warn if it is not going to fit, by what is estimated."""
        self.console.print(seats_table(placement.seats))
        for line in device_lines(placement):
            self._write(f"memory, by estimate: {line}")
        if missing := placement.shortage():
            self.warn(missing)

    def phase(self, name: str, detail: str) -> None:
        """Write what is being done."""
        self._write(f"{name}: {detail}")

    def step(self, step: int, total: int, metrics: Mapping[str, float]) -> None:
        """Write an update."""
        self._clock.tick()
        numbers = "  ".join(f"{name} {value:.3f}" for name, value in chosen(metrics).items())
        busy = "".join(f"  {name} {mark}" for name, mark in busy_marks(metrics).items())
        self._write(f"step {step}/{total}  {numbers}  {self._clock.describe(total - step)}{busy}")

    def evaluated(self, step: int, evaluation: "Evaluation", beside: "Beside") -> None:
        """Write an evaluation."""
        names = dict.fromkeys((*_MEASURES, *beside.audit))
        found = {name: evaluation.metrics[name] for name in names if name in evaluation.metrics}
        numbers = "  ".join(
            f"{name} {value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]" for name, value in found.items()
        )
        if beside.train_reward is not None:
            numbers += f"  (reward in training {beside.train_reward:.3f})"
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
        if chart := busy_chart(summary):
            self._write(chart)
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
        row = {"step": str(step), **numbers, "seconds": f"{self._clock.last:.1f}", **busy_marks(metrics)}
        self._rows = [*self._rows, row][-_ROWS:]
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
        return Group(steps_table(self._rows), self._progress) if self._rows else Group(self._progress)


def wide_console() -> Console:
    """Return standard output; where it is no terminal, lines may be longer than a terminal's."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=120)


def make_display() -> Display:
    """Return the display that fits standard output."""
    return LiveDisplay() if sys.stdout.isatty() else PlainDisplay()
