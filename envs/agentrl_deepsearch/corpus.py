"""Passages and questions as JSON lines, in the layout that retrieval toolkits share.

A passage is `{"id", "title", "text"}` or `{"id", "contents"}`, a question `{"id", "question",
"golden_answers", "metadata"}`. A line that is neither is an error that names file and line.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from agentrl.errors import UsageError
from agentrl.types import Task


@dataclass(frozen=True, slots=True)
class Passage:
    """One document that a search can find."""

    id: str
    title: str
    text: str


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    if not path.is_file():
        raise UsageError(f"there is no file {str(path)!r}; check the path of the env's option")
    status = path.stat()
    return _sha256_of(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _sha256_of(path: Path, modified: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_lines(path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield line number, byte offset and object of each line that is not blank.

    Raises:
        UsageError: there is no such file, or a line is not a JSON object.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {str(path)!r}; check the path of the env's option")
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, offset, _parse(line, path, number)
            offset += len(line)


def _parse(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise UsageError(f"{path}, line {number}: not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path}, line {number}: expected a JSON object, one a line")
    return value


def passage_from(value: Mapping[str, Any]) -> Passage | None:
    """Return the passage that `value` describes, or None if it describes none."""
    title, text, contents = value.get("title", ""), value.get("text"), value.get("contents")
    if text is None and isinstance(contents, str):
        # Search-R1's layout: the title in quotes on the first line.
        first, _, rest = contents.partition("\n")
        title, text = (first.strip().strip('"'), rest) if rest else (title, contents)
    if not isinstance(title, str) or not isinstance(text, str):
        return None
    return Passage(str(value.get("id", title or text[:100])), title, text)


def read_passages(path: Path) -> Iterator[tuple[int, Passage]]:
    """Yield byte offset and passage of each line of a corpus."""
    for number, offset, value in read_lines(path):
        passage = passage_from(value)
        if passage is None:
            raise UsageError(f'{path}, line {number}: a passage needs "title" and "text", or "contents"')
        yield offset, passage


@lru_cache(maxsize=16)
def _read_questions(path: Path, split: str, digest: str) -> tuple[Task, ...]:
    tasks: dict[str, Task] = {}
    for number, _, value in read_lines(path):
        task = _task(path, number, value, split)
        if task.id in tasks:
            raise UsageError(f"{path}, line {number}: the id {task.id!r} was used before; ids must be unique")
        tasks[task.id] = task
    if not tasks:
        raise UsageError(f"the split {split!r} is empty: {path} holds no question")
    return tuple(tasks.values())


def read_questions(path: Path, split: str) -> tuple[Task, ...]:
    """Return the questions of a file as tasks of `split`."""
    return _read_questions(path, split, sha256_of(path))


def _task(path: Path, number: int, value: Mapping[str, Any], split: str) -> Task:
    answers, metadata = value.get("golden_answers"), value.get("metadata") or {}
    if not isinstance(value.get("question"), str):
        raise UsageError(f'{path}, line {number}: a question needs a text "question"')
    if not isinstance(answers, list) or not answers or not all(isinstance(text, str) for text in answers):
        raise UsageError(f'{path}, line {number}: "golden_answers" must be a list of at least one text')
    if not isinstance(metadata, dict) or not _decomposed(metadata.get("decomposition") or []):
        raise UsageError(
            f'{path}, line {number}: "metadata" must be an object, and its "decomposition", if any, '
            'a list of {"question", "answer"}'
        )
    hops = metadata.get("hops")
    data = {"question": value["question"], "golden_answers": answers, "metadata": metadata}
    return Task(
        str(value.get("id", f"{split}-{number}")),
        split,
        data,
        difficulty=hops if isinstance(hops, int) else None,
    )


def _decomposed(steps: Any) -> bool:
    return isinstance(steps, list) and all(
        isinstance(step, dict) and all(isinstance(step.get(key), str) for key in ("question", "answer"))
        for step in steps
    )
