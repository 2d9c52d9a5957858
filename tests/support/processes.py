"""Processes that a test starts: which they are, whether they run, and until when it waits for them."""

import time
from collections.abc import Callable
from pathlib import Path


def descendants(pid: int | str = "self") -> set[int]:
    """Return the running processes that a process has started, and theirs."""
    found = set()
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (thread / "children").read_text().split()):
                found |= {child, *descendants(child)} if is_running(child) else set()
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def is_running(pid: int | None) -> bool:
    """Return whether a process runs; zombies do not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until a condition holds, which it is to do within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
