"""Makes pages of what lies outside docs/, when `properdocs build` runs, so that every link leads somewhere.

The pages of docs/ are read in a checkout, too, where they link to examples, source files and CHANGELOG. What
is linked becomes a page of its own, `source/PATH`: Markdown as it is, everything else as code, a folder as
the list of its files.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from markdown.extensions.toc import slugify
from properdocs.config.defaults import ProperDocsConfig
from properdocs.structure.files import File, Files, InclusionLevel
from properdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)\s#]+)(#[^)\s]*)?(?=\))")
ALWAYS = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")
LANGUAGES = {".py": "python", ".toml": "toml", ".yaml": "yaml", ".json": "json"}


def on_config(config: ProperDocsConfig) -> None:
    """Let no heading's name begin with a digit: the theme looks names up as selectors, which may not."""

    def named(text: str, separator: str) -> str:
        return re.sub(r"^(?=\d)", f"v{separator}", slugify(text, separator))

    config.mdx_configs["toc"]["slugify"] = named


def on_files(files: Files, config: ProperDocsConfig) -> Files:
    """Add a page for whatever outside docs/ is linked, and for what those pages link in turn."""
    waiting = [ROOT / name for name in ALWAYS]
    for file in files.documentation_pages():
        waiting += outside(DOCS / file.src_uri)
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            page = File.generated(
                config, page_of(path), content=content_of(path), inclusion=InclusionLevel.NOT_IN_NAV
            )
            files.append(page)
            waiting += outside(path)
    return files


def on_page_markdown(markdown: str, page: Page, config: ProperDocsConfig, files: Files) -> str:
    """Return the page with links to what lies outside docs/ leading to the pages made of it."""
    source = source_of(page.file.src_uri)
    if source.suffix != ".md" and source.is_file():
        return markdown
    here = Path(page.file.src_uri).parent

    def rewritten(link: re.Match[str]) -> str:
        target = (folder_of(source) / link[1]).resolve()
        return os.path.relpath(page_of(target), here) + (link[2] or "") if target.exists() else link[0]

    return LINK.sub(rewritten, markdown)


def outside(path: Path) -> Iterator[Path]:
    """Yield the files and folders outside docs/ that a file links, or that are in a folder."""
    if path.is_dir():
        yield from listed(path)
    elif path.suffix == ".md":
        for link, _ in LINK.findall(path.read_text()):
            target = (folder_of(path) / link).resolve()
            if target.exists() and not target.is_relative_to(DOCS):
                yield target


def listed(folder: Path) -> list[Path]:
    """Return what is in a folder for people to read."""
    entries = (
        entry for entry in folder.iterdir() if not entry.name.startswith((".", "__pycache__", "py.typed"))
    )
    return sorted(entries, key=lambda entry: (entry.is_dir(), entry.name))


def folder_of(path: Path) -> Path:
    """Return where the links of a page begin."""
    return path if path.is_dir() else path.parent


def page_of(path: Path) -> str:
    """Return where in docs/ the page of a path is, or would be."""
    if path.is_relative_to(DOCS):
        return str(path.relative_to(DOCS))
    name = path.relative_to(ROOT)
    return f"source/{name}/index.md" if path.is_dir() else f"source/{name}.md"


def source_of(page: str) -> Path:
    """Return the path of which a page is made."""
    if not page.startswith("source/"):
        return DOCS / page
    name = page.removeprefix("source/")
    return ROOT / (name.removesuffix("/index.md") if name.endswith("/index.md") else name.removesuffix(".md"))


def content_of(path: Path) -> str:
    """Return the page of a path outside docs/, in Markdown."""
    name = path.relative_to(ROOT)
    if path.is_dir():
        entries = [f"- [{entry.name}{'/' * entry.is_dir()}]({entry.name})" for entry in listed(path)]
        return "\n".join([f"# `{name}/`", "", *entries, ""])
    text = path.read_text()
    if path.suffix == ".md":
        return text
    return f"# `{name}`\n\n````{LANGUAGES.get(path.suffix, 'text')}\n{text}\n````\n"
