"""One browser for all episodes of an event loop: started when first needed, started anew when it died.

Envs take a lease; the browser is closed with the last lease. Pages that were open in a browser that died
raise `BrowserGone`, which ends their episodes; the next page is opened in a new browser.
"""

import asyncio
import contextlib
import weakref
from dataclasses import dataclass

from .chromium import Chromium, find_executable
from .page import Page, PageOptions, open_page
from .protocol import BrowserGone, Connection
from .site import Site

# Nothing has happened yet while a page is opened, so that it may be tried again: the browser may have died
# since the last one, and once in some thousand times the process of a page crashes as it starts.
TRIES = 3
PAUSE_SECONDS = 0.5


class Browser:
    """A browser that runs."""

    def __init__(self, chromium: Chromium, connection: Connection) -> None:
        """Take what `start` has made."""
        self.chromium = chromium
        self.connection = connection

    @classmethod
    async def start(cls, executable: str) -> "Browser":
        """Start a browser.

        Raises:
            BrowserGone: it ends at once; the message says why.
        """
        chromium = Chromium(executable)
        try:
            connection = await Connection.over(chromium.end, chromium.last_words)
            await connection.call("Browser.getVersion")
        except BrowserGone as error:
            chromium.kill()
            raise BrowserGone(f"{executable} does not run as a browser: {error}") from error
        except BaseException:
            chromium.kill()
            raise
        return cls(chromium, connection)

    @property
    def alive(self) -> bool:
        """Return whether it still runs."""
        return self.connection.alive

    async def open(self, site: Site, options: PageOptions) -> Page:
        """Return a blank page in a context of its own."""
        return await open_page(self.connection, site, options)

    def close(self) -> None:
        """End it and all that it has started. May be called twice."""
        self.connection.close()
        self.chromium.kill()


class _Shared:
    """The browser of one event loop and one executable, and how many lease it."""

    def __init__(self) -> None:
        self.leases = 0
        self.browser: Browser | None = None
        self.starting = asyncio.Lock()


_shared: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Shared]]" = (
    weakref.WeakKeyDictionary()
)


@dataclass(slots=True)
class Lease:
    """The right to open pages in the shared browser."""

    executable: str
    _of: _Shared
    _over: bool = False

    async def open(self, site: Site, options: PageOptions) -> Page:
        """Return a blank page; the browser is started if there is none, or if it died."""
        for _ in range(TRIES - 1):
            with contextlib.suppress(BrowserGone):
                return await (await self._running()).open(site, options)
            await asyncio.sleep(PAUSE_SECONDS)
        return await (await self._running()).open(site, options)

    async def _running(self) -> Browser:
        async with self._of.starting:
            if self._of.browser is not None and not self._of.browser.alive:
                self._of.browser.close()
                self._of.browser = None
            if self._of.browser is None:
                self._of.browser = await Browser.start(self.executable)
            return self._of.browser

    def close(self) -> None:
        """Give the right back; the last one closes the browser. May be called twice."""
        if self._over:
            return
        self._over = True
        self._of.leases -= 1
        if self._of.leases == 0 and self._of.browser is not None:
            self._of.browser.close()
            self._of.browser = None


def lease(executable: str | None = None) -> Lease:
    """Return a lease of this event loop's browser.

    Raises:
        UsageError: there is no browser; the message says how to install one.
    """
    found = find_executable(executable)
    of = _shared.setdefault(asyncio.get_running_loop(), {}).setdefault(found, _Shared())
    of.leases += 1
    return Lease(found, of)
