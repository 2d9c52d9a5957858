"""docs/ can be built to static pages, none of whose links is dead, and which fetch nothing from elsewhere."""

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt

import agentrl
from agentrl import hookspecs
from agentrl.cli.describe import describe
from agentrl.discovery import CORE, list_plugins

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
# Elements that a browser fetches by itself, with the attribute that says from where.
FETCHED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "object": "data"}


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


def test_the_drawing_needs_nothing_else() -> None:
    drawing = (DOCS / "how-a-run-works.svg").read_text()
    assert re.findall(r"(?:href|src)=|@import|url\((?!#)|<script", drawing) == []
    assert "how-a-run-works.svg" in (DOCS / "how-a-run-works.md").read_text()


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
