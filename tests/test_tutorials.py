"""The tutorials are done as they stand there: files are written, commands run, and what they print compared.

A block of Python with `title="PATH"` is the new text of a file; a block of bash is run where the one before
it left off, and has to succeed; a block of text after it is what it prints, `...` standing for anything. No
other blocks are allowed, so that nothing in a tutorial goes unseen.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
TUTORIALS = sorted(DOCS.glob("tutorial-*.md"))
PAGES = [*TUTORIALS, DOCS / "publishing.md"]
BLOCK = re.compile(r"^```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    language: str
    title: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    for language, title, text in BLOCK.findall(page.read_text()):
        yield Block(language, title, text)


class Reader:
    """Somebody who does what a tutorial says."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self.said = ""

    def follow(self, block: Block) -> None:
        """Do what a block says."""
        if block.title:
            path = self.folder / block.title
            assert path.exists(), f"`agentrl new` has written no {block.title}"
            path.write_text(block.text)
        elif block.language == "bash":
            self._run(block.text)
        elif block.language == "text":
            wanted = ".*".join(map(re.escape, block.text.strip("\n").split("...")))
            assert re.search(wanted, self.said, re.DOTALL), f"wanted:\n{block.text}\nsaid:\n{self.said}"
        else:
            raise AssertionError(f"what is one to do with this?\n{block}")

    def _run(self, script: str) -> None:
        """Run commands, and stay in the folder that they end in."""
        here = self.folder / ".here"
        whole = f"set -euo pipefail\n{script}\npwd > {str(here)!r}"
        done = subprocess.run(
            ["bash", "-c", whole],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}"
        self.said = "\n".join(line.rstrip() for line in done.stdout.splitlines())
        self.folder = Path(here.read_text().strip())
        here.unlink()


def test_there_is_a_tutorial_for_each_kind_that_people_write() -> None:
    assert [page.stem.partition("-")[2] for page in TUTORIALS] == ["agent", "algorithm", "env", "reward"]


@pytest.mark.skipif(os.name != "posix" or not shutil.which("bash"), reason="the tutorials are for bash")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_can_be_followed(
    page: Path, tmp_path: Path, make_environment: Callable[[Path], Mapping[str, str]]
) -> None:
    pytest.importorskip("torch", reason="the tutorials train, which needs the extra torch")
    (tmp_path / "work").mkdir()
    environment = {**make_environment(tmp_path / "venv"), "NO_COLOR": "1", "COLUMNS": "120"}
    reader = Reader(tmp_path / "work", environment)
    followed = list(blocks(page))
    for block in followed:
        reader.follow(block)
    assert {"bash", "text"} <= {block.language for block in followed}
