"""One page in a context of its own: what an episode sees and touches.

Cookies, storage and cache are the context's and go with it, or are deleted before another episode begins in
it; what stays is what the site itself says may be kept (`cache-control`, by default nothing). The page can
reach its site and nothing else; dialogs are answered, downloads denied, new windows and workers refused, and
what was refused is noted. A page has a time to live, so that an episode that was forgotten does not keep its
memory for ever.
"""

import asyncio
import base64
import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .clock import NEW_YEAR, Clock, RealClock, VirtualClock
from .protocol import BrowserGone, Connection, ProtocolError
from .site import Response, Site, fulfilment, origin_of, request_of

LOAD_MS = 100
LOADS = 100
# Where every episode sets out from, and what it is.
EMPTY = "/agentrl-empty"
# All that a site can store, but for what the document itself deletes: Chromium never frees a document beside
# which "local_storage" was cleared.
_STORED = (
    "cookies,file_systems,indexeddb,websql,service_workers,cache_storage,shader_cache,interest_groups,"
    "shared_storage,storage_buckets"
)


@dataclass(frozen=True, slots=True)
class PageOptions:
    """How a page is opened.

    Attributes:
        script: runs in every document before the page's own.
        seed: of `Math.random`.
        time: at which virtual time begins, in seconds since 1970.
        seconds: to live, real ones.
        characters: of a snapshot, before it is cut.
    """

    script: str = ""
    seed: int = 0
    time: float = NEW_YEAR
    real_time: bool = False
    width: int = 1024
    height: int = 768
    seconds: float = 1800.0
    characters: int = 12_000


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a page shows: `text` for an agent; `digest` also knows what the text leaves out."""

    text: str
    digest: str


@cache
def walker() -> str:
    """Return the script that every document gets."""
    return Path(__file__).with_name("walker.js").read_text(encoding="utf-8")


class Page:
    """A page that is open in a browser."""

    def __init__(
        self, connection: Connection, context: str, session: str, site: Site, o: PageOptions
    ) -> None:
        """Take what the browser has made; use `open_page`."""
        self._connection, self._context, self._session = connection, context, session
        self.site, self.options = site, o
        self.clock: Clock = RealClock() if o.real_time else VirtualClock(self)
        self.refused: list[str] = []
        self._notes: list[str] = []
        self._next = 1
        self._failure: Exception | None = None
        self._scripts: list[str] = []
        self._setting_out = False
        self._ended = ""
        self._end_of_life: asyncio.TimerHandle | None = None
        self._live_on()

    # Talking to it

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Return the browser's answer to a call in the page's session."""
        self._check()
        return await self._connection.call(method, params, self._session)

    async def calls(self, *calls: tuple[str, dict[str, Any]]) -> None:
        """Make calls one right after the other, and wait for all."""
        self._check()
        answers = [self._connection.send(method, params, self._session) for method, params in calls]
        await asyncio.gather(*answers)

    def expect(self, event: str) -> "asyncio.Future[dict[str, Any]]":
        """Return the parameters to come of the page's next such event."""
        return self._connection.expect(event, self._session)

    async def evaluate(self, expression: str, *, wait: bool = False) -> Any:
        """Return the JSON value of a JavaScript expression; with `wait`, that of its promise.

        Raises:
            ProtocolError: it threw.
        """
        answer = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=wait
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            thrown = details.get("exception", {}).get("description", details.get("text"))
            raise ProtocolError(f"the page threw {thrown}")
        return answer["result"].get("value")

    async def walk(self, function: str, *arguments: Any) -> Any:
        """Return what a function of the walker answers."""
        listed = ", ".join(json.dumps(each) for each in arguments)
        return await self.evaluate(f"__agentrl.{function}({listed})")

    async def navigate(self, path: str) -> None:
        """Load a page of the site, up to its `load` event."""
        answer = await self.call("Page.navigate", url=self.site.origin + path)
        if answer.get("errorText"):
            raise ProtocolError(f"{path} could not be loaded: {answer['errorText']}")
        for _ in range(LOADS):
            await self.clock.run(LOAD_MS)
            if await self.evaluate("document.readyState") == "complete":
                return
        raise ProtocolError(f"{path} did not finish loading")

    async def restart(self, path: str) -> bool:
        """Have the document that is loaded played again; return whether that can be, because it is `path`.

        What its own scripts remember they still remember: only for pages that begin anew by themselves.
        """
        if self._ended or not self._connection.alive or self._failure is not None:
            return False
        try:
            if await self.walk("restart") != path:
                return False
            await self.calls(("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": 0, "y": 0}))
        except (BrowserGone, ProtocolError):
            return False
        self._begin_again()
        return True

    async def renew(self, site: Site, options: PageOptions) -> bool:
        """Make it as good as new for another episode; return whether that can be.

        Only the process is kept, which costs more to start than a document: what was stored is deleted, the
        history is forgotten, and time begins where `options` say.
        """
        if self._ended or not self._connection.alive or self._failure or not self._like(site, options):
            return False
        self.site, self.options = site, options
        try:
            await self._set_out()
        except (BrowserGone, ProtocolError):
            return False
        self._begin_again()
        return True

    async def _set_out(self) -> None:
        """Forget all that was, in an empty document of the site, from which every episode sets out."""
        self._setting_out = True
        await self.navigate(EMPTY)
        scripts = [
            ("Page.removeScriptToEvaluateOnNewDocument", {"identifier": each}) for each in self._scripts
        ]
        await self.calls(
            *scripts,
            ("Page.resetNavigationHistory", {}),
            ("Storage.clearDataForOrigin", {"origin": self.site.origin, "storageTypes": _STORED}),
            ("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": -1, "y": -1}),
        )
        await self.evaluate("sessionStorage.clear(), localStorage.clear(), name = ''")
        options = self.options
        late = self.clock.late(options.time)
        told = json.dumps({"virtual": not options.real_time, "seed": options.seed, "late": late})
        script = f"({walker()})({told});\n{options.script}"
        added = await self.call("Page.addScriptToEvaluateOnNewDocument", source=script)
        self._scripts = [added["identifier"]]
        self._setting_out = False

    def _like(self, site: Site, options: PageOptions) -> bool:
        """Return whether the page is as one of `site` would be opened with `options`."""
        size = (self.options.width, self.options.height)
        alike = size == (options.width, options.height) and site.origin == self.site.origin
        return alike and self.clock.virtual and not options.real_time

    def _begin_again(self) -> None:
        self._next, self._notes, self.refused = 1, [], []
        self.clock.restart()
        self._live_on()

    async def snapshot(self) -> Snapshot:
        """Return what the page shows now; elements without a bid get theirs."""
        seen = json.loads(await self.walk("snapshot", self._next, self.options.characters))
        self._next = seen["next"]
        for what in seen["refused"]:
            self._note_refusal(what)
        return Snapshot(seen["text"], seen["digest"])

    async def screenshot(self) -> bytes:
        """Return what the page looks like, as PNG."""
        answer = await self.call("Page.captureScreenshot", format="png")
        return base64.b64decode(answer["data"])

    def notes(self) -> Sequence[str]:
        """Return what happened since the last call that the page does not show: dialogs, refusals."""
        notes, self._notes = self._notes, []
        return notes

    # Its life

    async def close(self) -> None:
        """Close it, and forget all that it stored. May be called twice, and when the browser is dead."""
        if not self._ended:
            self._end("the page was closed")
            with contextlib.suppress(BrowserGone, ProtocolError):
                await self._connection.call(
                    "Target.disposeBrowserContext", {"browserContextId": self._context}
                )

    def _live_on(self) -> None:
        """Begin the time to live."""
        if self._end_of_life is not None:
            self._end_of_life.cancel()
        loop = asyncio.get_running_loop()
        self._end_of_life = loop.call_later(self.options.seconds, self._expire)

    def _expire(self) -> None:
        self._abandon(f"the page was closed after {self.options.seconds:g} s, its time to live")

    def _crash(self, _: Any) -> None:
        self._abandon("the page crashed")

    def _abandon(self, why: str) -> None:
        """End it, and let the browser forget it, without waiting for that."""
        if not self._ended:
            self._end(why)
            with contextlib.suppress(BrowserGone):
                self._connection.send("Target.disposeBrowserContext", {"browserContextId": self._context})

    def _end(self, why: str) -> None:
        self._ended = self._ended or why
        if self._end_of_life is not None:
            self._end_of_life.cancel()
        self._connection.end(self._session, why)

    def _check(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        if self._ended:
            raise BrowserGone(self._ended)

    # What it asks for

    def _answer(self, paused: dict[str, Any]) -> None:
        """Answer a request that the browser has paused, or refuse it."""
        url = paused["request"]["url"]
        if self._setting_out:
            # The document that is left may not speak to the site of the next.
            empty = Response(200 if url == self.site.origin + EMPTY else 404)
            self._send("Fetch.fulfillRequest", fulfilment(paused["requestId"], empty))
            return
        if origin_of(url) != self.site.origin:
            self._refuse(paused, url)
            return
        try:
            response = self.site.answer(request_of(paused))
        except Exception as error:
            # It is raised where the env waits for the page next: the site is part of the env.
            self._failure = error
            response = Response(500, "the site failed")
        self._send("Fetch.fulfillRequest", fulfilment(paused["requestId"], response))

    def _refuse(self, paused: dict[str, Any], url: str) -> None:
        # A document that is aborted leaves the page where it is.
        reason = "Aborted" if paused.get("resourceType") == "Document" else "AccessDenied"
        self._note_refusal(f"{paused['request']['method']} {url[:200]}")
        self._send("Fetch.failRequest", {"requestId": paused["requestId"], "errorReason": reason})

    def _answer_dialog(self, opening: dict[str, Any]) -> None:
        """Close a dialog: nobody has agreed to what nobody has seen."""
        accepted = opening["type"] in ("alert", "beforeunload")
        how = "closed" if accepted else "dismissed"
        self._notes.append(
            f"the page said {opening['message'][:500]!r} in a dialog ({opening['type']}, {how})"
        )
        self._send("Page.handleJavaScriptDialog", {"accept": accepted})

    def _note_refusal(self, what: str) -> None:
        self.refused.append(what)
        self._notes.append(f"refused, because only this site can be reached: {what}")

    def _send(self, method: str, params: dict[str, Any]) -> None:
        with contextlib.suppress(BrowserGone):
            self._connection.send(method, params, self._session)


async def open_page(connection: Connection, site: Site, options: PageOptions) -> Page:
    """Return a blank page in a new context, closed off, with its clock started."""
    made = await connection.call("Target.createBrowserContext", {"disposeOnDetach": True})
    context = made["browserContextId"]
    try:
        blank = {"url": "about:blank", "width": options.width, "height": options.height}
        target = await connection.call("Target.createTarget", {**blank, "browserContextId": context})
        attached = await connection.call(
            "Target.attachToTarget", {"targetId": target["targetId"], "flatten": True}
        )
        page = Page(connection, context, attached["sessionId"], site, options)
        await _close_off(connection, page, context, attached["sessionId"])
    except BaseException:
        with contextlib.suppress(BrowserGone):
            connection.send("Target.disposeBrowserContext", {"browserContextId": context})
        raise
    return page


async def _close_off(connection: Connection, page: Page, context: str, session: str) -> None:
    """Set the page up; all of it is answered before it may navigate, else the renderer crashes."""
    heard = (
        ("Fetch.requestPaused", page._answer),
        ("Page.javascriptDialogOpening", page._answer_dialog),
        ("Inspector.targetCrashed", page._crash),
    )
    for event, listener in heard:
        connection.on(event, listener, session)
    denied = connection.send("Browser.setDownloadBehavior", {"behavior": "deny", "browserContextId": context})
    await page.calls(
        ("Page.enable", {}),
        ("Inspector.enable", {}),
        ("Fetch.enable", {"patterns": [{"urlPattern": "*"}]}),
        ("Page.setInterceptFileChooserDialog", {"enabled": True}),
        ("Input.setInterceptDrags", {"enabled": True}),
        ("Emulation.setFocusEmulationEnabled", {"enabled": True}),
    )
    await denied
    await page.clock.start(page.options.time)
    await page._set_out()
