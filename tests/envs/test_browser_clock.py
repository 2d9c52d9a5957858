"""Virtual time where the browser does not say that it has passed: it is pushed on, or the episode ends."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from agentrl_browser import Page, PageOptions, ProtocolError, Request, Response, clock, lease
from agentrl_browser.clock import NEW_YEAR, VirtualClock

pytestmark = pytest.mark.usefixtures("browser")
COUNTS = "let n = 0; setInterval(() => { said.textContent = ++n; }, 100);"
WAITS = f"<body><p id=said>0</p><script>{COUNTS} fetch('/thing');</script>"
# Two ports that send each other messages for ever leave a page without a moment of rest.
RESTLESS = """<body><script>
const { port1, port2 } = new MessageChannel();
port1.onmessage = () => port2.postMessage(0);
setTimeout(() => port2.postMessage(0), 1000);
</script>"""


class Site:
    """Answers with a page."""

    origin = "http://site.invalid"

    def __init__(self, html: str) -> None:
        self.html = html

    def answer(self, request: Request) -> Response:
        return Response(body=self.html if request.path == "/" else "")

    def state_key(self) -> str:
        return ""


@contextmanager
def unanswered(path: str) -> Iterator[None]:
    """Leave requests for `path` open, as the browser now and then takes one for open that was answered."""
    answer = Page._answer

    def leave(page: Page, paused: dict[str, Any]) -> None:
        if not paused["request"]["url"].endswith(path):
            answer(page, paused)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Page, "_answer", leave)
        yield


@pytest.fixture(autouse=True)
def policies(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Look more often, and return the policies under which time was granted."""
    monkeypatch.setattr(clock, "LOOK_SECONDS", 0.25)
    granted: list[str] = []
    grant = VirtualClock._grant

    async def note(self: VirtualClock, policy: str, ms: int) -> None:
        granted.append(policy)
        await grant(self, policy, ms)

    monkeypatch.setattr(VirtualClock, "_grant", note)
    return granted


def shown(html: str, *waits: int) -> list[tuple[int, str]]:
    """Return, after each wait, how much time has passed in the page since the first, and what it shows."""

    async def episode() -> list[tuple[int, str]]:
        leased = lease()
        page = await leased.open(Site(html), PageOptions())
        try:
            await page.navigate("/")
            seen = []
            for ms in waits:
                await page.clock.run(ms)
                seen.append((await page.evaluate("Date.now()"), (await page.snapshot()).text))
            return [(round(now - NEW_YEAR * 1000), text) for now, text in seen]
        finally:
            await page.close()
            leased.close()

    return asyncio.run(episode())


def test_time_that_stalls_is_pushed_on_and_the_page_is_the_same(policies: list[str]) -> None:
    with unanswered("/thing"):
        stalled = shown(WAITS, 500, 250, 1000)
    assert [now for now, _ in stalled] == [600, 850, 1850], "with the 100 ms in which it was loaded"
    assert "'18'" in stalled[-1][1]
    assert policies.count("advance") >= 4, "one for each wait"
    assert shown(WAITS, 500, 250, 1000) == stalled


def test_a_page_that_never_comes_to_rest_is_an_error_that_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clock, "LOOKS", 8)
    with pytest.raises(ProtocolError, match=r"5000 ms did not pass in the page within 2 s"):
        shown(RESTLESS, 500, 5000)
