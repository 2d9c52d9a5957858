"""How much memory the processes of a run have, as the operating system counts it; on Linux only."""

import os
from pathlib import Path

from agentrl.hardware import GIB

_PROCESSES = Path("/proc")


def memory_metrics() -> dict[str, float]:
    """Return GiB of resident memory: of this process, and of all that it has started, directly or not.

    Memory that processes share is counted in each of them.
    """
    found = dict(filter(None, map(_process, _numbers())))
    own = os.getpid()
    if own not in found:
        return {}
    below = [number for number in found if number != own and _descends(number, own, found)]
    return {
        "memory/process": found[own][1] / GIB,
        "memory/children": sum(found[number][1] for number in below) / GIB,
    }


def _numbers() -> list[int]:
    if not _PROCESSES.is_dir():
        return []
    return [int(each) for each in os.listdir(_PROCESSES) if each.isdigit()]


def _process(number: int) -> tuple[int, tuple[int, int]] | None:
    """Return a process with its parent and its bytes; None if it is gone."""
    try:
        text = (_PROCESSES / str(number) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The name, in parentheses, may hold anything; behind it fields are counted from the third.
    fields = text.rpartition(")")[2].split()
    return number, (int(fields[1]), int(fields[21]) * os.sysconf("SC_PAGE_SIZE"))


def _descends(number: int, ancestor: int, found: dict[int, tuple[int, int]]) -> bool:
    while number in found:
        number = found[number][0]
        if number == ancestor:
            return True
    return False
