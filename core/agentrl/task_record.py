"""What became of the tasks of an update, and what that says of many updates: tasks.jsonl, `agentrl tasks`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from agentrl.breakdown import succeeded
from agentrl.metrics import has_signal
from agentrl.types import Group

Row = Mapping[str, Any]


def task_rows(groups: Sequence[Group], kept: Sequence[bool]) -> Iterator[dict[str, Any]]:
    """Yield the line of each group, JSON-safe.

    `reward` and `success` are means over the trajectories that did not fail, None if all did; `taught` is
    whether their rewards differ, so that there was something to compare; `kept`, whether it was trained on.
    """
    for group, keep in zip(groups, kept, strict=True):
        played = [t for t in group.trajectories if not t.failed]
        yield {
            "task": group.task.id,
            "difficulty": group.task.difficulty,
            "scenario": group.task.scenario,
            "labels": dict(group.task.labels),
            "trajectories": len(group.trajectories),
            "failed": len(group.trajectories) - len(played),
            "reward": fmean(t.reward for t in played) if played else None,
            "success": fmean(map(succeeded, played)) if played else None,
            "taught": has_signal(group),
            "kept": keep,
        }


@dataclass(frozen=True, slots=True)
class Digest:
    """Some lines of the record, taken together.

    Attributes:
        key: what they have in common: the values of the fields by which they were taken together.
        tasks: how many different ones.
        groups: how often they were played: the number of lines.
        trajectories: how many were played.
        reward: mean over the trajectories that did not fail; None if all did.
        success: share of them that succeeded.
        taught: share of the groups whose rewards differ.
        kept: share of the groups that were trained on.
        last: the last step in which one was played.
    """

    key: tuple[Any, ...]
    tasks: int
    groups: int
    trajectories: int
    reward: float | None
    success: float | None
    taught: float
    kept: float
    last: int


def digest(rows: Iterable[Row], fields: Sequence[str]) -> list[Digest]:
    """Return the lines taken together that agree in `fields`; most trajectories first, then by name.

    The tasks' labels count as fields, too.
    """
    together: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        together.setdefault(tuple(value_of(row, each) for each in fields), []).append(row)
    found = [_digest_one(key, each) for key, each in together.items()]
    return sorted(found, key=lambda one: (-one.trajectories, *map(str, one.key)))


def labels_of(rows: Iterable[Row]) -> list[str]:
    """Return the names of the labels that tasks have; the lines of older runs have none."""
    return list(dict.fromkeys(name for row in rows for name in row.get("labels", {}) if name not in row))


def value_of(row: Row, field: str) -> Any:
    """Return a field of a line, or its task's label of that name; None where there is none."""
    return row[field] if field in row else row.get("labels", {}).get(field)


def _digest_one(key: tuple[Any, ...], rows: Sequence[Row]) -> Digest:
    return Digest(
        key=key,
        tasks=len({row["task"] for row in rows}),
        groups=len(rows),
        trajectories=sum(row["trajectories"] for row in rows),
        reward=_mean(rows, "reward"),
        success=_mean(rows, "success"),
        taught=fmean(row["taught"] for row in rows),
        kept=fmean(row["kept"] for row in rows),
        last=max(row["step"] for row in rows),
    )


def _mean(rows: Sequence[Row], name: str) -> float | None:
    """Return the mean over trajectories, not over groups, which may differ in size."""
    sizes: list[int] = [row["trajectories"] - row["failed"] for row in rows]
    if not any(sizes):
        return None
    total: float = sum(size * row[name] for size, row in zip(sizes, rows, strict=True) if size)
    return total / sum(sizes)
