"""The tutorials are done as they stand there: files are written, commands run, and what they print compared.

A block of Python with `title="PATH"` is the new text of a file, a diff with one is an edit of it; a block of
bash is run where the one before it left off, and has to succeed; a block of text after it is what it prints,
`...` standing for anything. No other blocks are allowed, so that nothing in a tutorial goes unseen. README's
way to a reward of one's own is followed in the same manner.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

from agentrl.records import load_trajectories

DOCS = Path(__file__).parent.parent / "docs"
README = DOCS.parent / "README.md"
TUTORIALS = sorted(DOCS.glob("tutorial-*.md"))
PAGES = [*TUTORIALS, DOCS / "publishing.md"]
# What makes README's run one of seconds.
SHORT = (
    "--steps 1 --out run --set tasks_per_step=2 --set group_size=2 --set evaluation.tasks=8 "
    "--set rewards.brevity.turns=1"
)
BLOCK = re.compile(r"^```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    language: str
    title: str
    text: str


def blocks(text: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page or a part of one."""
    for language, title, inside in BLOCK.findall(text):
        yield Block(language, title, inside)


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
            path.write_text(edited(path.read_text(), block) if block.language == "diff" else block.text)
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


def edited(text: str, diff: Block) -> str:
    """Return text in which lines of a diff that begin with - are replaced by those with +."""
    old, new = (re.findall(rf"(?m)^{sign}(.*\n)", diff.text) for sign in ("-", r"\+"))
    assert text.count("".join(old)) == 1, f"what is to be edited stands there once:\n{diff.text}"
    return text.replace("".join(old), "".join(new))


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, make_environment: Callable[[Path], Mapping[str, str]]
) -> tuple[Path, Mapping[str, str]]:
    """Make an environment in which nothing is ever installed: to make one takes longer than to copy it."""
    pytest.importorskip("torch", reason="the tutorials train, which needs the extra torch")
    place = tmp_path_factory.mktemp("made") / "venv"
    return place, make_environment(place)


@pytest.fixture
def environment(made: tuple[Path, Mapping[str, str]], tmp_path: Path) -> Mapping[str, str]:
    """Return the variables of a fresh environment."""
    first, variables = made
    place = shutil.copytree(first, tmp_path / "venv", symlinks=True)
    for program in (place / "bin").iterdir():
        if not program.is_symlink():
            program.write_text(program.read_text().replace(str(first), str(place)))
    here = {name: value.replace(str(first), str(place)) for name, value in variables.items()}
    return {**here, "NO_COLOR": "1", "COLUMNS": "120"}


@pytest.fixture
def reader(tmp_path: Path, environment: Mapping[str, str]) -> Reader:
    """Return somebody in an empty folder, in a fresh environment."""
    (tmp_path / "work").mkdir()
    return Reader(tmp_path / "work", environment)


def test_there_is_a_tutorial_for_each_kind_that_people_write() -> None:
    assert [page.stem.partition("-")[2] for page in TUTORIALS] == ["agent", "algorithm", "env", "reward"]


for_bash = pytest.mark.skipif(
    os.name != "posix" or not shutil.which("bash"), reason="the tutorials are for bash"
)


@for_bash
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_can_be_followed(page: Path, reader: Reader) -> None:
    followed = list(blocks(page.read_text()))
    for block in followed:
        reader.follow(block)
    assert {"bash", "text"} <= {block.language for block in followed}


@for_bash
@pytest.mark.timeout(900)
def test_a_reward_is_made_and_trained_with_as_the_readme_says(reader: Reader) -> None:
    *steps, last = blocks(README.read_text().partition("## Your own data")[2].partition("\n## ")[0])
    assert [block.language for block in (*steps, last)] == ["bash", "diff", "bash"]
    for block in (*steps, replace(last, text=f"{last.text.rstrip()} {SHORT}")):
        reader.follow(block)
    run = reader.folder / "run"
    assert yaml.safe_load((run / "run.yaml").read_text())["rewards"]["brevity"]["weight"] == 0.1
    played = [each for path in (run / "trajectories").iterdir() for each in load_trajectories(path)]
    for each in played:
        success = each.outcome is not None and each.outcome.success
        assert each.rewards["brevity"] == (0.8 ** (len(each.turns) - 1) if success else 0)
        assert each.reward == pytest.approx(each.rewards["exact_match"] + 0.1 * each.rewards["brevity"])
    assert any(each.rewards["brevity"] for each in played)
