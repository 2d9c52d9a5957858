"""Writes the curves of a run for TensorBoard: `tensorboard --logdir runs`.

Uses the `tensorboard` package alone, without torch, and writes each record at once: a killed run loses
nothing. Where `tensorboard` is not installed the run goes on without curves and says so once.
"""

import logging
import math
import os
import socket
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pydantic import Field

from agentrl import Plugin, PluginConfig, hookimpl

if TYPE_CHECKING:
    from agentrl.config import RunConfig

LOG = logging.getLogger(__name__)


class TensorBoard(Plugin):
    """Write every metric of updates and evaluations as a curve."""

    class Config(PluginConfig):
        """Options of the hook plugin `tensorboard`."""

        enabled: bool = Field(default=True, description="whether curves are written")
        folder: str = Field(default="tensorboard", description="where, in the run directory")

    config: Config

    def __init__(self, config: Config | None = None) -> None:
        """Open nothing yet."""
        super().__init__(config)
        self._events: Events | None = None

    @hookimpl
    def run_started(self, config: "RunConfig", folder: Path) -> None:
        """Open the file of events."""
        if not self.config.enabled:
            return
        if find_spec("tensorboard") is None:
            LOG.info("no curves for TensorBoard; pip install 'agentrl-platform[tensorboard]' adds them")
            return
        self._events = Events(folder / self.config.folder)

    @hookimpl
    def step_finished(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the metrics of an update."""
        if self._events:
            self._events.write(step, metrics, forget_from=step)

    @hookimpl
    def evaluated(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the metrics of an evaluation."""
        if self._events:
            self._events.write(step, metrics, forget_from=step + 1)

    @hookimpl
    def run_finished(self) -> None:
        """Close the file."""
        if self._events:
            self._events.close()


class Events:
    """A file of TensorBoard events."""

    def __init__(self, folder: Path) -> None:
        """Make a new file in `folder`, beside those of earlier starts of the run."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._file: BinaryIO = (folder / name).open("xb")
        self._records = RecordWriter(self._file)
        self._resumed = len(list(folder.iterdir())) > 1
        self._add(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def write(self, step: int, metrics: Mapping[str, float], forget_from: int) -> None:
        """Write one value per metric; those that are not finite are left out.

        In a resumed run the first call has TensorBoard forget what was written for `forget_from` and later.
        """
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary

        if self._resumed:
            start = SessionLog(status=SessionLog.START)
            self._add(Event(wall_time=time.time(), step=forget_from, session_log=start))
            self._resumed = False
        values = [
            Summary.Value(tag=name, simple_value=value)
            for name, value in metrics.items()
            if math.isfinite(value)
        ]
        self._add(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def close(self) -> None:
        """Close the file. May be called twice."""
        self._file.close()

    def _add(self, event: Any) -> None:
        self._records.write(event.SerializeToString())
        self._file.flush()
