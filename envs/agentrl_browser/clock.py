"""The page's time: virtual, so that it stands still while the model thinks and nobody waits; or real.

Virtual time passes only while `run` lasts, and not while requests are pending, so that the same actions lead
to the same page, at any speed and any load. Frames are not part of it: the walker makes
`requestAnimationFrame` a timer.
"""

import asyncio
from typing import Any, Protocol

from .protocol import ProtocolError

# 2026-01-01 00:00:00 UTC
NEW_YEAR = 1_767_225_600.0
# How often, and how many times, a page is looked at whose time should have passed; and after how many looks
# in a row that find the same time it counts as stalled. A look that takes longer than it should says only
# that the machine is busy.
LOOK_SECONDS = 1.0
LATE_SECONDS = 0.2
LOOKS = 120
STALLED = 4
NOW = "Date.now()"


class Clock(Protocol):
    """Lets time pass in a page. `elapsed` is how much, in ms."""

    virtual: bool
    elapsed: int

    def restart(self) -> None:
        """Count `elapsed` from now on."""
        ...

    async def start(self, time: float) -> None:
        """Begin, before the page is loaded, at `time` in seconds since 1970 where that can be chosen."""
        ...

    def late(self, time: float) -> int:
        """Return by how many ms the page's time is after `time`, which it is told from now on."""
        ...

    async def run(self, ms: int) -> None:
        """Let `ms` pass."""
        ...


class Session(Protocol):
    """What the clock asks of a page."""

    async def calls(self, *calls: tuple[str, dict[str, Any]]) -> None:
        """Make calls, and wait for all."""
        ...

    def expect(self, event: str) -> "asyncio.Future[dict[str, Any]]":
        """Return the parameters to come of the next such event."""
        ...

    async def evaluate(self, expression: str) -> Any:
        """Return the JSON value of a JavaScript expression."""
        ...


class VirtualClock:
    """Time that passes when it is told to."""

    virtual = True

    def __init__(self, page: Session) -> None:
        """Take the page."""
        self._page = page
        self._began = 0.0
        self._late = 0
        self.elapsed = 0

    async def start(self, time: float) -> None:
        """Stop time at `time`."""
        self._began = time * 1000
        params = {"policy": "pause", "initialVirtualTime": time}
        await self._page.calls(("Emulation.setVirtualTimePolicy", params))

    def late(self, time: float) -> int:
        """Return by how many ms the page's time is after `time`, which it is told from now on."""
        self._late = round(self._began + self.elapsed - time * 1000)
        return self._late

    def restart(self) -> None:
        """Count `elapsed` from now on; the page's time goes on."""
        self._began += self.elapsed
        self.elapsed = 0

    async def run(self, ms: int) -> None:
        """Let `ms` pass.

        Raises:
            ProtocolError: they do not, because the page never comes to rest.
        """
        self.elapsed += ms
        expired = self._page.expect("Emulation.virtualTimeBudgetExpired")
        await self._grant("pauseIfNetworkFetchesPending", ms)
        loop, seen = asyncio.get_running_loop(), list[float]()
        for _ in range(LOOKS):
            began = loop.time()
            await asyncio.wait([expired], timeout=LOOK_SECONDS)
            if expired.done():
                expired.result()
                return
            now = await self._page.evaluate(NOW)
            late = loop.time() - began > LOOK_SECONDS + LATE_SECONDS
            seen = [] if late else [*(each for each in seen if each == now), now]
            if len(seen) == STALLED:
                await self._push_on(now)
                seen = []
        raise ProtocolError(f"{ms} ms did not pass in the page within {LOOKS * LOOK_SECONDS:g} s")

    async def _push_on(self, now: float) -> None:
        """Let the rest pass without a regard for requests.

        Once in some hundred episodes Chromium goes on waiting for a request that was answered long ago. All
        requests are answered at once, so that a page that answers us while its time stands still is no
        longer waiting for any.
        """
        await self._grant("advance", max(1, round(self._began + self.elapsed - self._late - now)))

    async def _grant(self, policy: str, ms: int) -> None:
        # So many tasks may run without time passing; beyond, it is pushed on.
        params = {"policy": policy, "budget": ms, "maxVirtualTimeTaskStarvationCount": 100_000}
        await self._page.calls(("Emulation.setVirtualTimePolicy", params))


class RealClock:
    """The time of this machine, which nobody stops."""

    virtual = False

    def __init__(self) -> None:
        """Begin at nothing."""
        self.elapsed = 0

    async def start(self, time: float) -> None:
        """Do nothing: real time cannot be chosen."""

    def late(self, time: float) -> int:
        """Return 0: it is what it is."""
        return 0

    def restart(self) -> None:
        """Count `elapsed` from now on."""
        self.elapsed = 0

    async def run(self, ms: int) -> None:
        """Wait for `ms`."""
        self.elapsed += ms
        await asyncio.sleep(ms / 1000)
