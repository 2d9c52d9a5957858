"""What the documents point at exists, and the Python in them is Python."""

import ast
import re
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
pytestmark = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def test_every_relative_link_points_at_something(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)", page.read_text())
    relative = [link.partition("#")[0] for link in links if "://" not in link]
    assert [link for link in relative if not (page.parent / link).exists()] == []


def test_every_python_block_compiles(page: Path) -> None:
    blocks = re.findall(r"^ *```python\n(.*?)^ *```$", page.read_text(), re.DOTALL | re.MULTILINE)
    for block in blocks:
        ast.parse(dedent(block), page.name)
