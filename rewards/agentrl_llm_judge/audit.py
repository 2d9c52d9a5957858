"""Leaves what people need to check the judge in the run's folder.

`judge.json` says who judged, by which prompt; `audit.jsonl` holds a sample of the verdicts, with what the env
says of the same trajectory. Which are in the sample depends on the requests alone, not on chance.
"""

from pathlib import Path
from typing import Any

from agentrl.files import append_lines, read_lines, write_json, writing


class Audit:
    """The sample of one run."""

    def __init__(self, folder: Path, share: float, first: int) -> None:
        """Take where to write, which share of the verdicts, and how many of the first whatever they are."""
        self._path = folder / "audit.jsonl"
        self._share, self._first = share, first
        self._written = {row["key"] for row in read_lines(self._path)}

    def describe(self, judge: dict[str, Any]) -> None:
        """Write who judges, by which prompt."""
        write_json(self._path.with_name("judge.json"), judge, "the judge")

    def note(self, key: str, row: dict[str, Any]) -> None:
        """Write a verdict down, if it is in the sample and not written yet."""
        if key in self._written or not self._wants(key):
            return
        self._written.add(key)
        with writing(self._path, "the audit sample"):
            self._path.parent.mkdir(parents=True, exist_ok=True)
        append_lines(self._path, [{"key": key, **row}], "the audit sample")

    def _wants(self, key: str) -> bool:
        return len(self._written) < self._first or int(key[:8], 16) < self._share * 16**8
