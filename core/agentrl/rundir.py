"""The run directory: everything a run leaves behind.

    run.yaml            the configuration, complete; `agentrl run run.yaml` does it all again
    manifest.json       versions, plugins, held-out tasks, seeds, hashes of model and data
    metrics.jsonl       a line of JSON for every update
    tasks.jsonl         a line of JSON for every task of an update: how it went, whether it taught
    evaluations.jsonl   a line of JSON for every evaluation on held-out tasks
    trajectories/       step-000001.jsonl.gz, eval-000050.jsonl.gz (see `records`)
    checkpoints/        step-000010/, the last few (see `checkpoints`)
    model/              the trained model, once the run has ended
    summary.json        every metric before and after
    run.log             what went wrong, with tracebacks

A lock keeps a second process out; a resumed run forgets what was recorded after its checkpoint.
"""

import fcntl
import json
import os
import re
import shutil
import traceback
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from agentrl.checkpoints import Checkpoints
from agentrl.config import RunConfig, load_run_file, resolve
from agentrl.errors import AgentRLError, UsageError
from agentrl.evaluation import Evaluation
from agentrl.files import append_lines, encode, read_lines, to_json, write_bytes, write_json, writing
from agentrl.interfaces import Env
from agentrl.manifest import check_same, make_manifest
from agentrl.records import save_trajectories
from agentrl.resolution import check_resumable
from agentrl.run_files import render
from agentrl.types import Group, Task

_LOCK = ".lock"
# What there is once a run has done something.
_LINES = ("metrics.jsonl", "tasks.jsonl", "evaluations.jsonl")
_RECORDS = (*_LINES, "trajectories", "checkpoints", "warmup", "model")


class RunDirectory:
    """One run's folder, locked. `path` is where it is."""

    def __init__(self, path: Path, config: RunConfig, lock: IO[str], *, resumed: bool) -> None:
        """Use `open` instead."""
        self.path = path
        self.resumed = resumed
        self._lock = lock
        self._checkpoints = Checkpoints(path / "checkpoints", config.checkpoints.keep)

    @classmethod
    def open(cls, config: RunConfig, folder: Path | None = None, *, resume: bool = False) -> "RunDirectory":
        """Make a new run directory, or go on in an old one; usable in a `with` statement.

        Args:
            config: is written to run.yaml; a resumed run's must say the same, but for how long and how fast.
            folder: None makes `runs/ENV-ALGORITHM-TIME`.
            resume: go on in `folder`.

        Raises:
            UsageError: the folder is not empty, or is no run directory to resume, or the configuration is
                of another run.
            AgentRLError: another process has it, or it cannot be written.
        """
        path = folder or _new_name(config)
        if resume:
            _check_is_run(path)
        else:
            _check_is_free(path)
            with writing(path, "the run directory"):
                path.mkdir(parents=True, exist_ok=True)
        directory = cls(path, config, _lock(path), resumed=resume)
        try:
            directory._rewind(config) if resume else directory._begin(config)
        except BaseException:
            directory.close()
            raise
        return directory

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes in. May be called twice."""
        self._lock.close()

    def _begin(self, config: RunConfig) -> None:
        _check_is_free(self.path)  # again, now that nobody else can come between
        (self.path / "manifest.json").unlink(missing_ok=True)
        write_bytes(self.path / "run.yaml", render(config).encode(), "the configuration")

    def _rewind(self, config: RunConfig) -> None:
        """Forget what was recorded after the last checkpoint: it will happen again."""
        old = load_config(self.path)
        check_resumable(old, config)
        if old.to_document() != config.to_document():
            write_bytes(self.path / "run.yaml", render(config).encode(), "the configuration")
        latest = self._checkpoints.latest()
        step = latest[0] if latest else 0
        for name in _LINES:
            _keep_until(self.path / name, step)
        _forget_trajectories(self.path / "trajectories", step)
        shutil.rmtree(self.path / "model", ignore_errors=True)
        (self.path / "summary.json").unlink(missing_ok=True)

    def write_manifest(self, config: RunConfig, env: Env, held_out: list[Task], model: Path | str) -> None:
        """Write manifest.json; on a resumed run, make sure that it still holds.

        Raises:
            UsageError: model, data or held-out tasks are not what they were.
        """
        manifest = make_manifest(config, env, held_out, model)
        path = self.path / "manifest.json"
        if path.exists():
            check_same(json.loads(path.read_text()), json.loads(to_json(manifest)))
        else:
            write_json(path, manifest, "the manifest")

    def write_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append the metrics of an update."""
        append_lines(self.path / "metrics.jsonl", [{"step": step, **metrics}], "metrics")

    def write_tasks(self, step: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append what became of each task of an update (see `task_record`)."""
        append_lines(self.path / "tasks.jsonl", ({"step": step, **row} for row in rows), "tasks")

    def write_evaluation(self, step: int, evaluation: Evaluation, **beside: Any) -> None:
        """Append an evaluation, and what it is to be compared with, JSON-safe."""
        row = {"step": step, **evaluation.to_json(), **beside}
        append_lines(self.path / "evaluations.jsonl", [row], "an evaluation")

    def evaluations(self) -> dict[int, Evaluation]:
        """Return the evaluations by step."""
        return {
            row.pop("step"): Evaluation.from_json(row) for row in read_lines(self.path / "evaluations.jsonl")
        }

    def has_evaluation(self, step: int) -> bool:
        """Return whether the evaluation of `step` is recorded."""
        return step in self.evaluations()

    def write_trajectories(self, name: str, groups: Iterable[Group]) -> Path:
        """Write trajectories/NAME.jsonl.gz and return its path."""
        path = self.path / "trajectories" / f"{name}.jsonl.gz"
        save_trajectories(path, groups)
        return path

    def write_checkpoint(self, step: int, save: Callable[[Path], None]) -> Path:
        """Let `save` fill the folder of a checkpoint, and return it once it is complete on disk."""
        return self._checkpoints.write(step, save)

    def latest_checkpoint(self) -> Path | None:
        """Return the folder of the last complete checkpoint."""
        latest = self._checkpoints.latest()
        return latest[1] if latest else None

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json."""
        write_json(self.path / "summary.json", summary, "the summary")


def log_failure(folder: Path, error: BaseException) -> Path:
    """Append the traceback of `error` to run.log in `folder`, and return its path."""
    path = folder / "run.log"
    with writing(path, "the traceback"), path.open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S}\n{''.join(traceback.format_exception(error))}\n")
    return path


def load_config(folder: Path) -> RunConfig:
    """Return the configuration of the run in `folder`.

    Raises:
        UsageError: there is no run, or its configuration does not fit what is installed now.
    """
    _check_is_run(folder)
    return resolve(load_run_file(folder / "run.yaml"), source=str(folder / "run.yaml"))


def load_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the metrics of every update of the run in `folder`; those that were not finite are None."""
    return read_lines(folder / "metrics.jsonl")


def load_tasks(folder: Path) -> list[dict[str, Any]]:
    """Return what became of each task of each update of the run in `folder` (see `task_record`).

    Raises:
        UsageError: there is no run.
    """
    _check_is_run(folder)
    return read_lines(folder / "tasks.jsonl")


def _new_name(config: RunConfig) -> Path:
    name = f"{config.env.name}-{config.algorithm.name}-{datetime.now():%Y%m%d-%H%M%S}"
    path, number = Path("runs") / name, 1
    while path.exists():
        number += 1
        path = Path("runs") / f"{name}-{number}"
    return path


def _check_is_run(path: Path) -> None:
    if not (path / "run.yaml").is_file():
        raise UsageError(f"there is no run in {path}: it has no run.yaml")


def _check_is_free(path: Path) -> None:
    """Refuse a folder with something in it; a run that failed before it did anything does not count."""
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file; choose another --out")
    if any((path / name).exists() for name in _RECORDS):
        raise UsageError(f"{path} holds a run already; go on with --resume {path}, or choose another --out")
    if (path / "run.yaml").exists() or not path.exists():
        return
    if any(each.name != _LOCK for each in path.iterdir()):
        raise UsageError(f"{path} is not empty; choose another --out")


def _lock(path: Path) -> IO[str]:
    """Keep other processes out until the returned file is closed, or this process ends."""
    with writing(path, "the run directory"):
        file = (path / _LOCK).open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise AgentRLError(
            f"another process (id {holder}) is running in {path}; wait for it, or choose another --out"
        ) from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _keep_until(path: Path, step: int) -> None:
    """Leave only the lines up to `step`."""
    rows = [row for row in read_lines(path) if row["step"] <= step]
    if path.exists():
        text = "".join(to_json(row) + "\n" for row in rows)
        write_bytes(path, encode(text), path.name)


def _forget_trajectories(folder: Path, step: int) -> None:
    """Remove what was played after `step`."""
    for path in folder.glob("*.jsonl.gz"):
        match = re.fullmatch(r"(?:step|eval)-(\d+)\.jsonl\.gz", path.name)
        if match and int(match[1]) > step:
            path.unlink()
