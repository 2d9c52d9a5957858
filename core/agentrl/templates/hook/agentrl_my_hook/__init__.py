"""A hook plugin that keeps a run's metrics as a table, for a spreadsheet.

Hook plugins take part in every run from when they are installed. A hook is a method with the name of one of
`agentrl.hookspecs`; it may leave out arguments that it does not use.
"""

import csv
from collections.abc import Mapping
from pathlib import Path

from agentrl import Plugin, PluginConfig, hookimpl
from pydantic import Field

__all__ = ["MyHook"]

FILE = "my_hook.csv"


class MyHook(Plugin):
    """Write chosen metrics of every update into a table in the run directory."""

    class Config(PluginConfig):
        """Options: the hook's name stands before them in `--set hooks.NAME.metrics=[success]`."""

        metrics: tuple[str, ...] = Field(default=("success", "reward"), description="what is written")

    config: Config

    def __init__(self, config: Config | None = None) -> None:
        """Know no run yet."""
        super().__init__(config)
        self.path: Path | None = None

    @hookimpl
    def run_started(self, folder: Path) -> None:
        """Begin the table, unless this run goes on with one."""
        self.path = folder / FILE
        if not self.path.exists():
            self._write("step", *self.config.metrics)

    @hookimpl
    def step_finished(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a line, with a gap where there is no such metric."""
        self._write(step, *(metrics.get(name, "") for name in self.config.metrics))

    def _write(self, *cells: object) -> None:
        if self.path is not None:
            with self.path.open("a", newline="") as file:
                csv.writer(file).writerow(cells)
