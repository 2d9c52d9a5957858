"""Names the part of a run that is stuck: which env, task and turn, waiting for what, since when.

It looks from a thread of its own, so that it also sees an env that blocks the event loop. It never
interrupts: time-outs do that.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class _Wait:
    what: str
    since: float
    reported: bool = False


class Watchdog:
    """Reports every wait that lasts longer than `patience` seconds, once."""

    def __init__(self, patience: float, warn: Callable[[str], None]) -> None:
        """Take the patience in seconds, and whom to tell."""
        self._patience = patience
        self._warn = warn
        self._waits: dict[str, _Wait] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Watchdog":
        self._stop.clear()
        self._thread = threading.Thread(target=self._watch, name="agentrl-watchdog", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()

    @contextmanager
    def waiting(self, session: str, what: str) -> Iterator[None]:
        """Note that `session` waits for `what` while the block runs."""
        self._waits[session] = _Wait(what, time.monotonic())
        try:
            yield
        finally:
            self._waits.pop(session, None)

    def _watch(self) -> None:
        while not self._stop.wait(min(1.0, self._patience / 4)):
            self._report()

    def _report(self) -> None:
        now = time.monotonic()
        late = [(session, wait) for session, wait in list(self._waits.items()) if self._is_late(wait, now)]
        for _, wait in late:
            wait.reported = True
        if late:
            session, wait = min(late, key=lambda each: each[1].since)
            more = f" (and {len(late) - 1} more episodes)" if len(late) > 1 else ""
            self._warn(f"{session}: {wait.what} has been waiting for {now - wait.since:.0f} s{more}")

    def _is_late(self, wait: _Wait, now: float) -> bool:
        return not wait.reported and now - wait.since > self._patience
