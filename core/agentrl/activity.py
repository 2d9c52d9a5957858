"""How long engine, envs and trainer were at work, each by the clock: where a run waits, and for whom."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


class Activity:
    """The time during which at least one was at work; to be entered by each of them, from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin at rest."""
        self._clock = clock
        self._lock = threading.Lock()
        self._working = 0
        self._since = 0.0
        self._before = 0.0

    def __enter__(self) -> None:
        with self._lock:
            if not self._working:
                self._since = self._clock()
            self._working += 1

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        with self._lock:
            self._working -= 1
            if not self._working:
                self._before += self._clock() - self._since

    @property
    def seconds(self) -> float:
        """Return the time so far, that of those who are still at work included."""
        with self._lock:
            return self._before + (self._clock() - self._since if self._working else 0.0)


@dataclass(frozen=True, slots=True)
class Activities:
    """Who is at work when.

    Attributes:
        engine: while a request to it is in flight: asked and not yet answered, whether computed or waiting.
        envs: while one has been asked for something and has not answered.
        trainer: while it prepares, updates or hands weights over.
    """

    engine: Activity = field(default_factory=Activity)
    envs: Activity = field(default_factory=Activity)
    trainer: Activity = field(default_factory=Activity)

    def seconds(self) -> dict[str, float]:
        """Return how long each has been at work."""
        return {"engine": self.engine.seconds, "envs": self.envs.seconds, "trainer": self.trainer.seconds}

    def shares(self, before: Mapping[str, float], elapsed: float) -> dict[str, float]:
        """Return the share of the last `elapsed` seconds, over which `seconds` were `before` first."""
        now = self.seconds()
        return {f"busy/{name}": (now[name] - before[name]) / max(elapsed, 1e-9) for name in now}
