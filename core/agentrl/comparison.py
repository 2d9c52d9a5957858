"""Compares old scores with new ones, reward by reward: what `agentrl rescore` shows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import StatisticsError, correlation, fmean
from typing import Any

Row = Mapping[str, Any]

# Sums of floats that differ by less are equal.
_EQUAL = 1e-9


@dataclass(frozen=True, slots=True)
class Comparison:
    """Old and new scores of one reward; "reward" is their weighted sum.

    Attributes:
        name: of the reward.
        old: mean; None where it was not scored before.
        new: mean; None where it is not scored now.
        changed: share of the trajectories whose score is another.
        alike: Pearson's correlation of old and new; None where one of them is always the same.
        with_success: correlation of the new score with the env's verdict.
    """

    name: str
    old: float | None
    new: float | None
    changed: float | None
    alike: float | None
    with_success: float | None


def compare(rows: Iterable[Row]) -> list[Comparison]:
    """Return the comparison of each reward, the sum first; trajectories that were not judged are left out."""
    judged = [row for row in rows if row["new"] is not None]
    names = dict.fromkeys(name for row in judged for side in ("old", "new") for name in row[side])
    return [_compare_one(name, judged) for name in names]


def share_that_differ(rows: Iterable[Row], side: str) -> float | None:
    """Return the share of groups whose rewards differ, so that there is something to learn; None of none."""
    groups: dict[Any, set[float]] = {}
    for row in rows:
        if row["new"] is not None:
            groups.setdefault((row["file"], row["group"]), set()).add(row[side]["reward"])
    return fmean(len(rewards) > 1 for rewards in groups.values()) if groups else None


def _compare_one(name: str, rows: Sequence[Row]) -> Comparison:
    old = [row["old"][name] for row in rows if name in row["old"]]
    scored = [row for row in rows if name in row["new"]]
    new = [row["new"][name] for row in scored]
    both = [(row["old"][name], row["new"][name]) for row in scored if name in row["old"]]
    return Comparison(
        name,
        fmean(old) if old else None,
        fmean(new) if new else None,
        fmean(abs(x - y) > _EQUAL for x, y in both) if both else None,
        _correlation(both),
        _correlation([(row["success"], row["new"][name]) for row in scored]),
    )


def _correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    try:
        return correlation(*zip(*pairs, strict=True)) if len(pairs) > 1 else None
    except StatisticsError:  # one side is constant
        return None
