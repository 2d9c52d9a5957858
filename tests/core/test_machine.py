"""How many cores a process may keep busy."""

from pathlib import Path

import pytest

from agentrl import machine


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("max 100000\n", None),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("5000 100000\n", 1),
        ("", None),
        ("nonsense", None),
        ("100000 0", None),
    ],
)
def test_a_quota_is_rounded_up_to_whole_cores(text: str, allowed: int | None) -> None:
    assert machine.parse_quota(text) == allowed


def test_cores_are_those_of_the_process_within_the_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda process: set(range(8)))
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(machine, "_CPU_QUOTA", quota)
    assert machine.cores() == 8
    quota.write_text("250000 100000\n")
    assert machine.cores() == 3
    quota.write_text("1600000 100000\n")
    assert machine.cores() == 8
