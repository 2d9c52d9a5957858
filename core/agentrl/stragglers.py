"""Cuts off the slowest episodes of a call of the simulator, so that not all the others wait for them.

An episode is cut off once it has taken a multiple of the median of those that are over, as soon as half of
them are; those that failed count for nothing, since they may fail at once. It teaches nothing, and it is
counted: what is slow need not be what is bad, so an env whose long episodes are its good ones should be given
the time.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from statistics import median


class CutOff(Exception):
    """An episode took too long; the message says how long."""


class Stragglers:
    """The clocks of the episodes of one call."""

    def __init__(self, total: int, multiple: float | None) -> None:
        """Take how many episodes there are, and the multiple of the median; None never cuts."""
        self._total = total
        self._multiple = multiple
        self._over: list[float] = []
        self._running: dict[asyncio.Timeout, float] = {}

    @asynccontextmanager
    async def watching(self, failed: Callable[[], bool] = lambda: False) -> AsyncIterator[None]:
        """Run an episode in this block; when it is over, `failed` tells whether it failed.

        Raises:
            CutOff: it took too long and was cancelled.
        """
        clock, began = asyncio.timeout(None), time.monotonic()
        self._running[clock] = began
        try:
            async with clock:
                self._set(clock, began)
                yield
            if failed():
                self._total -= 1
            else:
                self._over.append(time.monotonic() - began)
        except TimeoutError as error:
            if not clock.expired():
                raise
            raise CutOff(
                f"cut off after {time.monotonic() - began:.0f} s, {self._multiple:g} times the median of the "
                "episodes that were over"
            ) from error
        finally:
            del self._running[clock]
        for other, start in self._running.items():
            self._set(other, start)

    def _set(self, clock: asyncio.Timeout, began: float) -> None:
        """Say when an episode that began then is cut off, if that can be told and it has not come to that."""
        known = self._over and 2 * len(self._over) >= self._total
        if self._multiple is None or not known or clock.expired():
            return
        left = began + self._multiple * median(self._over) - time.monotonic()
        clock.reschedule(asyncio.get_running_loop().time() + max(0.0, left))
