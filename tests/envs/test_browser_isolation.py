"""What a page tries to reach beyond its site, it does not reach: each test listens where the page knocks."""

# ruff: noqa: E501 - lines of HTML and JavaScript

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agentrl_browser import Page, PageOptions, Request, Response, find_executable, lease
from agentrl_browser.browser import Browser

pytestmark = pytest.mark.usefixtures("browser")
GRACE = 0.3
HTML = "<!doctype html><title>Site</title><body><p>inside</p></body>"


class Site:
    """Answers every request with a page, unless told otherwise, and remembers what was asked."""

    origin = "http://site.invalid"

    def __init__(self, **answers: Response) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def answer(self, request: Request) -> Response:
        self.asked.append(f"{request.method} {request.path}")
        return self.answers.get(request.path.strip("/"), Response(body=HTML))

    def state_key(self) -> str:
        return ""


class Listener:
    """A port of this machine that notes who knocks, by TCP and UDP."""

    def __init__(self, family: socket.AddressFamily = socket.AF_INET) -> None:
        host = "127.0.0.1" if family == socket.AF_INET else "::1"
        self.knocks: list[str] = []
        self._tcp = socket.create_server((host, 0), family=family)
        self.port: int = self._tcp.getsockname()[1]
        self._udp = socket.socket(family, socket.SOCK_DGRAM)
        self._udp.bind((host, self.port))
        for listen in (self._listen, self._receive):
            threading.Thread(target=listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._tcp.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(1)
                self.knocks.append("tcp")
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")

    def _receive(self) -> None:
        while True:
            try:
                data, _ = self._udp.recvfrom(2048)
            except OSError:
                return
            if data != b"self":
                self.knocks.append("udp")

    def close(self) -> None:
        self._tcp.close()
        self._udp.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.close()


@asynccontextmanager
async def opened(site: Site, *, real_time: bool = True) -> AsyncIterator[Page]:
    leased = lease()
    page = await leased.open(site, PageOptions(real_time=real_time))
    try:
        await page.navigate("/")
        yield page
    finally:
        await page.close()
        leased.close()


def run_inside(script: str, site: Site | None = None) -> tuple[Page, object, str]:
    """Run `script`, the body of an async function, in a page; return page, result and what it shows then."""

    async def episode() -> tuple[Page, object, str]:
        async with opened(site or Site()) as page:
            result = await page.evaluate(f"(async () => {{ {script} }})()", wait=True)
            await page.clock.run(int(GRACE * 1000))
            return page, result, (await page.snapshot()).text

    return asyncio.run(episode())


def test_the_listener_hears_those_who_are_not_kept_inside(listener: Listener) -> None:
    with socket.create_connection(("127.0.0.1", listener.port), timeout=5) as knocking:
        assert knocking.recv(8) == b"HTTP/1.1"
    assert listener.knocks == ["tcp"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "127.0.0.2"])
def test_no_other_loopback_port_is_reached_by_http(host: str) -> None:
    listener = Listener(socket.AF_INET6 if ":" in host else socket.AF_INET)
    url = f"http://{host}:{listener.port}/"
    page, result, _ = run_inside(
        f"""const image = new Image(); image.src = "{url}image";
        navigator.sendBeacon("{url}beacon", "x");
        for (const [rel, as] of [["preconnect", ""], ["prefetch", ""], ["dns-prefetch", ""], ["preload", "script"]]) {{
          const link = document.createElement("link");
          link.rel = rel; link.as = as; link.href = "{url}" + rel; document.head.append(link);
        }}
        const frame = document.createElement("iframe"); frame.src = "{url}frame"; document.body.append(frame);
        new EventSource("{url}events").close();
        const simple = await fetch("{url}", {{mode: "no-cors"}}).then(() => "reached", (error) => error.name);
        const kept = await fetch("{url}kept", {{keepalive: true}}).then(() => "reached", (error) => error.name);
        return [simple, kept];"""
    )
    listener.close()
    assert result == ["TypeError", "TypeError"]
    assert listener.knocks == []
    assert f"GET {url}" in page.refused


def test_no_loopback_port_is_reached_by_web_socket(listener: Listener) -> None:
    _, result, _ = run_inside(
        f"""return await new Promise((tell) => {{
          const socket = new WebSocket("ws://127.0.0.1:{listener.port}/");
          socket.onopen = () => tell("reached"); socket.onerror = () => tell("refused");
        }});"""
    )
    assert result == "refused"
    assert listener.knocks == []


def test_no_port_is_reached_by_webrtc_or_webtransport(listener: Listener) -> None:
    _, result, _ = run_inside(
        f"""const frame = document.createElement("iframe"); frame.srcdoc = "x"; document.body.append(frame);
        await new Promise((tell) => setTimeout(tell, 100));
        const kinds = [];
        for (const from of [window, frame.contentWindow]) {{
          kinds.push(typeof from.WebTransport);
          const Peer = from.RTCPeerConnection;
          kinds.push(typeof Peer);
          if (!Peer) continue;
          const peer = new Peer({{iceServers: [{{urls: "stun:127.0.0.1:{listener.port}"}},
            {{urls: "turn:127.0.0.1:{listener.port}?transport=tcp", username: "x", credential: "x"}}]}});
          peer.createDataChannel("x");
          await peer.setLocalDescription(await peer.createOffer());
        }}
        await new Promise((tell) => setTimeout(tell, 500));
        return kinds;"""
    )
    assert result == ["undefined"] * 4
    assert listener.knocks == []


def test_the_flags_alone_keep_a_page_without_interception_and_walker_inside(listener: Listener) -> None:
    script = f"""(async () => {{
      const peer = new RTCPeerConnection({{iceServers: [{{urls: "stun:127.0.0.1:{listener.port}"}},
        {{urls: "turn:127.0.0.1:{listener.port}?transport=tcp", username: "x", credential: "x"}}]}});
      peer.createDataChannel("x");
      await peer.setLocalDescription(await peer.createOffer());
      await fetch("http://127.0.0.1:{listener.port}/", {{mode: "no-cors"}}).catch(() => 0);
      new WebSocket("ws://127.0.0.1:{listener.port}/");
      await new Promise((tell) => setTimeout(tell, 1500));
      return typeof peer;
    }})()"""

    async def episode() -> object:
        browser = await Browser.start(find_executable())
        try:
            call = browser.connection.call
            target = await call("Target.createTarget", {"url": "about:blank"})
            attached = await call("Target.attachToTarget", {**target, "flatten": True})
            evaluate = {"expression": script, "awaitPromise": True, "returnByValue": True}
            answer = await call("Runtime.evaluate", evaluate, attached["sessionId"])
            return answer["result"].get("value")
        finally:
            browser.close()

    assert asyncio.run(episode()) == "object"
    assert listener.knocks == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "chrome://version", "view-source:file:///etc/passwd"])
def test_no_file_and_no_page_of_the_browser_is_read(url: str) -> None:
    _, result, text = run_inside(
        f"""const frame = document.createElement("iframe"); frame.src = "{url}"; document.body.append(frame);
        location.href = "{url}";
        await new Promise((tell) => setTimeout(tell, 200));
        return await fetch("{url}").then(() => "reached", (error) => error.name);"""
    )
    assert result == "TypeError"
    assert "root:" not in text
    assert "'inside'" in text


def test_a_browser_that_is_sent_to_a_file_is_not_shown_it() -> None:
    async def episode() -> str:
        async with opened(Site()) as page:
            await page.call("Page.navigate", url="file:///etc/passwd")
            await page.clock.run(300)
            return str(await page.evaluate("document.body ? document.body.innerText : ''"))

    assert "root:" not in asyncio.run(episode())


def test_names_are_not_resolved() -> None:
    page, result, _ = run_inside(
        """return await Promise.all(["http://example.com/", "https://localhost/"].map(
          (url) => fetch(url, {mode: "no-cors"}).then(() => "reached", (error) => error.name)));"""
    )
    assert result == ["TypeError", "TypeError"]
    assert page.refused == ["GET http://example.com/", "GET https://localhost/"]


def test_a_redirect_leads_nowhere_else(listener: Listener) -> None:
    away = Response(302, headers={"location": f"http://127.0.0.1:{listener.port}/"})
    page, result, text = run_inside(
        """const fetched = await fetch("/away").then(() => "reached", (error) => error.name);
        location.href = "/away";
        await new Promise((tell) => setTimeout(tell, 300));
        return fetched;""",
        Site(away=away),
    )
    assert result == "TypeError"
    assert "'inside'" in text, "the page stays where it is"
    assert listener.knocks == []
    assert page.refused


def test_a_form_is_posted_nowhere_else(listener: Listener) -> None:
    page, _, text = run_inside(
        f"""document.body.insertAdjacentHTML("beforeend",
          '<form method=post action="http://127.0.0.1:{listener.port}/"><input name=a value=1></form>');
        document.forms[0].submit();"""
    )
    assert listener.knocks == []
    assert page.refused == [f"POST http://127.0.0.1:{listener.port}/"]
    assert "'inside'" in text


def test_there_are_no_workers_that_could_ask_for_a_page(listener: Listener) -> None:
    script = f'fetch("http://127.0.0.1:{listener.port}/")'
    _, result, _ = run_inside(
        f"""const made = [];
        const code = URL.createObjectURL(new Blob([{json.dumps(script)}], {{type: "text/javascript"}}));
        for (const make of [() => new Worker(code), () => new SharedWorker(code), () => navigator.serviceWorker.register("/w")]) {{
          try {{ await make(); made.push("made"); }} catch (error) {{ made.push(error.name); }}
        }}
        await new Promise((tell) => setTimeout(tell, 300));
        return made;"""
    )
    assert result == ["ReferenceError", "ReferenceError", "TypeError"]
    assert listener.knocks == []


class SecureSite(Site):
    """A site on whose pages browsers offer what they keep from others, service workers among them."""

    origin = "https://site.invalid"


def test_a_page_that_browsers_trust_gets_no_service_worker_either(listener: Listener) -> None:
    script = f'fetch("http://127.0.0.1:{listener.port}/")'
    site = SecureSite(worker=Response(body=script, type="text/javascript"))
    _, result, _ = run_inside(
        """let made = "nothing";
        try { made = typeof (await navigator.serviceWorker.register("/worker")); } catch (error) { made = error.name; }
        await new Promise((tell) => setTimeout(tell, 300));
        return [isSecureContext, made];""",
        site,
    )
    assert result == [True, "TypeError"]
    assert listener.knocks == []


def test_nothing_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    attached = Response(body="secret", type="application/zip", headers={"content-disposition": "attachment"})
    site = Site(file=attached)
    run_inside(
        """const link = document.createElement("a");
        link.href = URL.createObjectURL(new Blob(["secret"])); link.download = "secret.txt";
        document.body.append(link); link.click();
        location.href = "/file";
        await new Promise((tell) => setTimeout(tell, 300));""",
        site,
    )
    assert "GET /file" in site.asked
    assert list(tmp_path.iterdir()) == []
    assert not list((Path.home() / "Downloads").glob("secret*"))


def test_windows_and_printing_are_refused_and_noted(listener: Listener) -> None:
    url = f"http://127.0.0.1:{listener.port}/"
    page, result, _ = run_inside(
        f"""print();
        document.body.insertAdjacentHTML("beforeend", '<a id=a target=_blank href="{url}">x</a>');
        document.getElementById("a").click();
        return window.open("{url}") === null;"""
    )
    assert result is True
    assert page.refused == ["printing", f"a new window {url}", f"a new window {url}"]
    assert listener.knocks == []


def test_a_window_that_gets_past_the_walker_reaches_nothing_and_is_closed(listener: Listener) -> None:
    """An iframe that is asked in the very moment of its making may still have the browser's own `open`."""

    async def episode() -> int:
        async with opened(Site()) as page:
            await page.evaluate(
                f"""(() => {{
                  const frame = document.createElement("iframe"); document.body.append(frame);
                  frame.contentWindow.open("http://127.0.0.1:{listener.port}/");
                  const form = document.createElement("form");
                  form.target = "_blank"; form.action = "http://127.0.0.1:{listener.port}/form";
                  document.body.append(form); form.submit();
                }})()"""
            )
            await page.clock.run(500)
            targets = await page._connection.call("Target.getTargets")
            return sum(each["type"] == "page" for each in targets["targetInfos"])

    assert asyncio.run(episode()) == 1
    assert listener.knocks == []


def test_dialogs_are_answered_and_told() -> None:
    async def episode() -> tuple[object, list[str]]:
        async with opened(Site(), real_time=False) as page:
            said = await page.evaluate("[alert('one'), confirm('two'), prompt('three')]")
            return said, list(page.notes())

    said, notes = asyncio.run(episode())
    assert said == [None, False, None]
    assert notes == [
        "the page said 'one' in a dialog (alert, closed)",
        "the page said 'two' in a dialog (confirm, dismissed)",
        "the page said 'three' in a dialog (prompt, dismissed)",
    ]


def test_episodes_share_neither_storage_nor_cookies() -> None:
    async def episode() -> list[object]:
        leased = lease()
        pages = [await leased.open(Site(), PageOptions()) for _ in range(2)]
        for page in pages:
            await page.navigate("/")
        await pages[0].evaluate("localStorage.x = document.cookie = 'x=1'")
        found = [await page.evaluate("[localStorage.x || '', document.cookie]") for page in pages]
        for page in pages:
            await page.close()
        leased.close()
        return found

    assert asyncio.run(episode()) == [["x=1", "x=1"], ["", ""]]
