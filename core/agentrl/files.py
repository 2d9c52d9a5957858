"""Writes files so that a reader never sees half of one, and says in a sentence why it cannot."""

import errno
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agentrl.errors import AgentRLError

_REMEDIES = {
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "your disk quota is used up; make room",
    errno.EFBIG: "the file would grow beyond the allowed size",
    errno.EACCES: "you may not write there",
    errno.EPERM: "you may not write there",
    errno.EROFS: "the file system is read-only",
}

# The files with which the tokenizers of transformers come.
_VOCABULARIES = ("tokenizer.json", "vocab.*", "*.model", "*.tiktoken")


@contextmanager
def writing(path: Path, what: str) -> Iterator[None]:
    """Turn an `OSError` in the block into one sentence about `what`, which is written to `path`."""
    try:
        yield
    except OSError as error:
        raise AgentRLError(
            f"could not write {what} to {path}: {error.strerror or error}{remedy(error)}; "
            "everything written before is intact"
        ) from error


def remedy(error: Exception) -> str:
    """Return " (what to do)" about a failed write, or "" if there is nothing to say."""
    known = _REMEDIES.get(error_number(error) or 0)
    return f" ({known})" if known else ""


def error_number(error: Exception) -> int | None:
    """Return the operating system's number of an error, or None if it is not the operating system's.

    Libraries that are written in Rust raise errors of their own, whose text ends in "(os error NUMBER)".
    """
    if isinstance(error, OSError):
        return error.errno
    told = re.search(r"os error (\d+)", str(error))
    return int(told[1]) if told else None


def write_bytes(path: Path, content: bytes, what: str) -> None:
    """Replace the file at `path` in one go.

    Raises:
        AgentRLError: the disk is full or `path` cannot be written; the file that was there stays.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    with writing(path, what):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(content)
            sync(unfinished)
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)


def write_json(path: Path, value: Any, what: str) -> None:
    """Replace the JSON file at `path` in one go; raises as `write_bytes`."""
    write_bytes(path, encode(to_json(value, indent=2) + "\n"), what)


def append_lines(path: Path, values: Iterable[Mapping[str, Any]], what: str) -> None:
    """Append a line of JSON for each value to `path`, through to the operating system.

    Raises:
        AgentRLError: the disk is full or `path` cannot be written.
    """
    with writing(path, what), path.open("ab") as file:
        file.write(encode("".join(to_json(value) + "\n" for value in values)))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of JSON in `path`; a last one that a kill cut short is left out.

    Raises:
        AgentRLError: another line is not JSON; it names file and line.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise AgentRLError(f"{path}, line {number}: not valid JSON: {error.msg}") from error
    return rows


def to_json(value: Any, indent: int | None = None) -> str:
    """Return `value` as JSON that every reader accepts: numbers that are not finite become null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False, ensure_ascii=False)


def encode(json_text: str) -> bytes:
    """Return JSON as UTF-8; a lone surrogate, which UTF-8 does not know, becomes an escape of JSON."""
    return json_text.encode(errors="backslashreplace")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value


def sync(path: Path) -> None:
    """Have the operating system bring a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def has_tokenizer(folder: Path) -> bool:
    """Return whether a model folder holds a vocabulary; a tokenizer's configuration alone is none."""
    return any(path.is_file() for pattern in _VOCABULARIES for path in folder.glob(pattern))
