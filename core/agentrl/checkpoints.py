"""Keeps checkpoints: a folder each, complete or not there.

A checkpoint is written under another name, brought to the disk, then renamed; so whatever is called
`step-000010` is whole. A list of its files tells if somebody has taken one away since.
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from agentrl.errors import AgentRLError, UsageError
from agentrl.files import remedy, sync, writing

LOG = logging.getLogger(__name__)
_CONTENTS = "contents.json"


class Checkpoints:
    """The checkpoints in a folder."""

    def __init__(self, folder: Path, keep: int) -> None:
        """Take the folder; the last `keep` checkpoints stay."""
        self._folder = folder
        self._keep = keep

    def write(self, step: int, save: Callable[[Path], None]) -> Path:
        """Let `save` fill a folder, make it the checkpoint of `step`, and return it.

        Raises:
            AgentRLError: it could not be written; the checkpoints that were there stay.
        """
        path = self._folder / _name(step)
        unfinished = path.with_name(f"{path.name}.unfinished")
        try:
            with writing(path, "the checkpoint"):
                self._fill(unfinished, save)
                self._swap(unfinished, path)
        except AgentRLError:
            raise
        except Exception as error:  # libraries have their own words for a full disk
            cause = f"{type(error).__name__}: {error}{remedy(error)}"
            kept = "; the checkpoints before it are intact" if any(self._all()) else ""
            raise AgentRLError(f"could not write the checkpoint to {path}: {cause}{kept}") from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        self._drop_old()
        return path

    def _fill(self, folder: Path, save: Callable[[Path], None]) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        save(folder)
        (folder / _CONTENTS).write_text(json.dumps(_sizes(folder)))
        for path in folder.rglob("*"):
            sync(path)
        sync(folder)

    def _swap(self, unfinished: Path, path: Path) -> None:
        """Rename, over a checkpoint of the same step if there is one."""
        old = path.with_name(f"{path.name}.old")
        if path.exists():
            os.rename(path, old)
        os.rename(unfinished, path)
        sync(path.parent)
        shutil.rmtree(old, ignore_errors=True)

    def _drop_old(self) -> None:
        for _, path in list(self._all())[: -self._keep]:
            shutil.rmtree(path)

    def latest(self) -> tuple[int, Path] | None:
        """Return step and folder of the last complete checkpoint; warn of incomplete ones."""
        if self._folder.is_dir():
            for path in sorted(self._folder.glob("*.unfinished")):
                LOG.warning("%s was not finished; it is ignored", path)
        for step, path in reversed(list(self._all())):
            if problem := _problem(path):
                LOG.warning("the checkpoint %s is ignored: %s", path, problem)
            else:
                return step, path
        return None

    def at(self, step: int) -> Path:
        """Return the checkpoint of `step`.

        Raises:
            UsageError: there is none, or it is incomplete; it names those there are.
        """
        found = dict(self._all())
        if step in found and not _problem(found[step]):
            return found[step]
        known = ", ".join(map(str, found)) or "none"
        raise UsageError(
            f"there is no complete checkpoint of step {step} in {self._folder}; there are: {known}"
        )

    def _all(self) -> Iterator[tuple[int, Path]]:
        """Yield step and folder of every checkpoint, in order."""
        for path in sorted(self._folder.glob("step-*")):
            match = re.fullmatch(r"step-(\d{6,})", path.name)
            if match and path.is_dir():
                yield int(match[1]), path


def _name(step: int) -> str:
    return f"step-{step:06d}"


def _sizes(folder: Path) -> dict[str, int]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / _CONTENTS)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _problem(folder: Path) -> str | None:
    """Return what is missing in a checkpoint."""
    try:
        expected = json.loads((folder / _CONTENTS).read_text())
    except (OSError, json.JSONDecodeError):
        return f"its {_CONTENTS} is missing or broken"
    actual = _sizes(folder)
    changed = [name for name, size in expected.items() if actual.get(name) != size]
    return f"{changed[0]} is missing or has another size" if changed else None
