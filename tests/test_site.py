"""docs/ can be built to static pages: no link is dead, nothing comes from elsewhere, a browser shows them."""

import asyncio
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt

import agentrl
from agentrl import hookspecs
from agentrl.cli.describe import describe
from agentrl.discovery import CORE, list_plugins
from agentrl.loop import Loop, Parts
from agentrl_browser.browser import Browser
from agentrl_browser.protocol import Connection

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
# Elements that a browser fetches by itself, with the attribute that says from where.
FETCHED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "object": "data"}
# Widths of windows, in pixels: of a telephone and of a desk.
WIDTHS = (360, 1280)
WRONG = """[
    ...(document.documentElement.scrollWidth > innerWidth ? [`${innerWidth} pixels are too narrow`] : []),
    ...[...document.images].filter(each => !(each.complete && each.naturalWidth)).map(each => each.src),
]"""
SEARCH = """new Promise(answer => {
    const box = document.getElementById("properdocs-search-query");
    const list = document.getElementById("properdocs-search-results");
    const found = () => answer([...list.querySelectorAll("a")].map(each => each.href));
    new MutationObserver(found).observe(list, {childList: true});
    box.value = "staleness";
    box.dispatchEvent(new Event("input"));
})"""


@dataclass
class Page(HTMLParser):
    """What of a built page matters here."""

    path: Path
    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of what an element is called and where it leads."""
        named = {name: value or "" for name, value in attrs}
        self.ids |= {named[name] for name in ("id", "name") if name in named}
        if tag == "a" and "href" in named:
            self.links.append(named["href"])
        if (attribute := FETCHED.get(tag)) and attribute in named:
            self.fetched.append(named[attribute])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Mapping[Path, Page]:
    """Build the pages, as their one command does; return them by path."""
    pytest.importorskip("properdocs", reason="building the pages needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "properdocs", "build", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {path: Page(path) for path in folder.rglob("*.html") if path.name != "404.html"}


def test_every_page_of_docs_is_built_and_reached_from_every_other(site: Mapping[Path, Page]) -> None:
    folder = min(path.parent for path in site)
    built = {folder / f"{page.stem}.html" for page in DOCS.glob("*.md")}
    assert built <= set(site)
    start = site[folder / "index.html"]
    assert {path.name for path in built} <= {urlsplit(link).path for link in start.links} | {"index.html"}


def test_no_link_between_the_pages_is_dead(site: Mapping[Path, Page]) -> None:
    dead = []
    for page in site.values():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or link == "#":
                continue
            target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
            known = site[target].ids if target in site else set()
            if not target.exists() or (parts.fragment and unquote(parts.fragment) not in known):
                dead.append(f"{page.path.name}: {link}")
    assert dead == []


def test_the_pages_are_read_as_a_checkout_is_where_markdown_is_common(site: Mapping[Path, Page]) -> None:
    folder = min(path.parent for path in site)
    written = {folder / f"{page.stem}.html": page for page in DOCS.glob("*.md")}
    outside = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")
    written |= {folder / "source" / f"{name}.html": ROOT / name for name in outside}
    for built, page in written.items():
        rendered = MarkdownIt("commonmark").enable("table").render(page.read_text())
        shown = built.read_text().partition('role="main">')[2].partition("<footer")[0]
        assert shape(shown) == shape(rendered), f"{page.name}: indent what belongs to a list by four spaces"


def shape(text: str) -> Mapping[str, int]:
    """Return how many there are of the elements that a misread page has more or fewer of."""
    return {
        tag: len(re.findall(rf"<{tag}[ >]", text)) for tag in ("li", "table", "tr", "pre", "h2", "h3", "img")
    }


def test_the_pages_fetch_nothing_from_elsewhere(site: Mapping[Path, Page]) -> None:
    assert [link for page in site.values() for link in page.fetched if urlsplit(link).netloc] == []
    for style in min(site).parent.rglob("*.css"):
        assert re.findall(r"(?:@import|url\()\s*['\"]?(?:https?:)?//[^)]*", style.read_text()) == [], (
            style.name
        )


# Pages in a browser


@dataclass
class Tab:
    """A browser's tab, and what has gone wrong in it."""

    connection: Connection
    session: str
    wrong: list[str] = field(default_factory=list)

    @classmethod
    async def open(cls, connection: Connection) -> "Tab":
        """Open an empty one."""
        target = await connection.call("Target.createTarget", {"url": "about:blank"})
        attached = {"targetId": target["targetId"], "flatten": True}
        tab = cls(connection, (await connection.call("Target.attachToTarget", attached))["sessionId"])
        for event in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            connection.on(event, tab._listen, tab.session)
        for domain in ("Page", "Runtime", "Log"):
            await tab.call(f"{domain}.enable")
        return tab

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Return the browser's answer."""
        return await self.connection.call(method, params, self.session)

    async def evaluate(self, script: str) -> Any:
        """Return what a script answers, or promises."""
        answer = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        return answer["result"]["value"]

    async def show(self, path: Path) -> None:
        """Open a page, and look at it in windows of all widths."""
        loaded = self.connection.expect("Page.loadEventFired", self.session)
        await self.call("Page.navigate", url=path.as_uri())
        await loaded
        for width in WIDTHS:
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
            await self.call("Emulation.setDeviceMetricsOverride", **size)
            self.wrong += [f"{path.name}: {each}" for each in await self.evaluate(WRONG)]

    def _listen(self, said: dict[str, Any]) -> None:
        entry = said.get("exceptionDetails") or said.get("entry") or said
        if "exceptionDetails" in said or "error" in (entry.get("level"), entry.get("type")):
            self.wrong.append(str(entry))


@pytest.fixture(scope="module")
def seen(site: Mapping[Path, Page], browser: str) -> tuple[list[str], list[str]]:
    """Return what is wrong with pages that are opened as files, and the addresses that a search found.

    Of the pages that are made of code, which are all alike, one of a folder and one of a file are opened.
    """
    folder = min(path.parent for path in site)
    code = folder / "source/examples/third_party/agentrl_countdown"
    pages = [*folder.glob("*.html"), *folder.glob("source/*.html"), *code.glob("i*.html"), *code.glob("_*")]

    async def look() -> tuple[list[str], list[str]]:
        running = await Browser.start(browser)
        try:
            tab = await Tab.open(running.connection)
            for page in sorted({*pages} & {*site}):
                await tab.show(page)
            return tab.wrong, await tab.evaluate(SEARCH)
        finally:
            running.close()

    return asyncio.run(look())


def test_pages_have_no_errors_no_missing_images_and_room_in_windows_of_all_widths(
    seen: tuple[list[str], list[str]],
) -> None:
    assert seen[0] == []


def test_a_search_finds_sections_in_pages_that_are_opened_as_files(
    site: Mapping[Path, Page], seen: tuple[list[str], list[str]]
) -> None:
    found = [urlsplit(address) for address in seen[1]]
    assert ("how-a-run-works.html", "played-while-the-trainer-works") in {
        (Path(each.path).name, each.fragment) for each in found
    }
    for each in found:
        assert not each.fragment or each.fragment in site[Path(unquote(each.path))].ids


# The drawing


def test_the_drawing_needs_nothing_else() -> None:
    drawing = (DOCS / "how-a-run-works.svg").read_text()
    assert re.findall(r"(?:href|src)=|@import|url\((?!#)|<script", drawing) == []
    assert "how-a-run-works.svg" in (DOCS / "how-a-run-works.md").read_text()


def test_the_drawing_shows_every_part_stage_and_hook_of_a_run_and_no_other() -> None:
    texts = re.findall(r'<text class="(\w+)"[^>]*>([^<]*)', (DOCS / "how-a-run-works.svg").read_text())
    titles = {text for kind, text in texts if kind == "title"}
    stages = set(re.findall(r"parts\.(\w+\.\w+)\(", inspect.getsource(Loop._update)))
    assert {"trainer.prepare", "algorithm.credit", "trainer.update"} == stages
    assert stages <= titles
    shown = {title.partition(".")[0] for title in titles}
    assert {each.name for each in fields(Parts)} - {"hooks"} <= shown
    named = " ".join(text for kind, text in texts if kind == "hook" or text.startswith("where any number"))
    assert set(re.findall(r"[a-z]+_[a-z]+|evaluated", named)) == set(hooks())


# Pages that are written from the code


@pytest.mark.timeout(300)
def test_pages_that_are_written_from_the_code_are_up_to_date() -> None:
    pytest.importorskip("torch", reason="describing all plugins needs the extra torch")
    check = [sys.executable, str(DOCS / "tools"), "--check"]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def hooks() -> Iterator[str]:
    for name, hook in vars(hookspecs).items():
        if hasattr(hook, "agentrl_spec"):
            yield name


@pytest.mark.parametrize("name", list(hooks()))
def test_every_hook_is_documented(name: str) -> None:
    assert (getattr(hookspecs, name).__doc__ or "").strip(), f"say in a docstring what {name} is for"
    assert f"### `{name}`" in (DOCS / "reference.md").read_text()


@pytest.mark.parametrize("name", agentrl.__all__)
def test_everything_that_agentrl_exports_is_documented(name: str) -> None:
    assert re.search(rf"^### {name}$|^\| `{name}[`(]", (DOCS / "reference.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("info", list_plugins(), ids=lambda info: f"{info.kind}-{info.name}")
def test_every_plugin_and_each_of_its_options_is_documented(info: agentrl.discovery.PluginInfo) -> None:
    if info.distribution != CORE:
        pytest.skip("it is not ours")
    try:
        plugin = describe(info)
    except agentrl.PluginError as error:
        pytest.skip(str(error))
    assert plugin.summary, "its docstring says what it is"
    assert [option.key for option in plugin.options if not option.description] == []
    assert f"| {info.kind} | `{info.name}` |" in (DOCS / "capabilities.md").read_text()
    assert f"### {info.kind} `{info.name}`" in (DOCS / "options.md").read_text()


def test_every_option_of_a_run_is_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "tools"))
    options = importlib.import_module("options_page").run_options()
    assert len(options) > 25
    assert [option.key for option in options if not option.description] == []


def test_every_entry_point_group_is_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "tools"))
    page = importlib.import_module("reference_page")
    assert set(page.other_groups()) <= set(page.GROUPS_BESIDES), "say in GROUPS_BESIDES what the group is for"
