"""What the documents point at exists, the Python in them runs, and their commands are commands."""

import ast
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest
import typer.main

from agentrl.cli import app
from agentrl.cli.arguments import parse_rewards
from agentrl.config import resolve

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# The tutorials are followed from end to end, in test_tutorials.
READ = [page for page in PAGES if page.stem != "publishing" and not page.stem.startswith("tutorial")]
BLOCK = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
# Plugins that the documents tell how to write.
WRITTEN = {"brevity"}
# What `agentrl run` is told that is no part of the configuration, or has to be there.
NO_OPTION = {"out", "setup", "model"}
named = {"ids": lambda page: page.name}


def blocks(page: Path, *languages: str) -> Iterator[str]:
    """Yield the fenced blocks of a page in one of these languages; "" is that of a block without one."""
    for _, language, text in BLOCK.findall(page.read_text()):
        if language in languages:
            yield dedent(text)


@pytest.mark.parametrize("page", PAGES, **named)
def test_every_relative_link_points_at_something(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)", page.read_text())
    relative = [link.partition("#")[0] for link in links if "://" not in link]
    assert [link for link in relative if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, **named)
def test_every_python_block_compiles(page: Path) -> None:
    for block in blocks(page, "python"):
        ast.parse(block, page.name)


@pytest.mark.parametrize("page", [page for page in READ if page.stem != "reference"], **named)
def test_every_python_block_runs(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "openai" in page.read_text():
        pytest.importorskip("openai", reason="the client is not installed: the extra test brings it")
    theirs: Any = ModuleType("my_package")
    theirs.MyEnv = object
    monkeypatch.setitem(sys.modules, "my_package", theirs)
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec", dont_inherit=True), {"__name__": "block"})


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the arguments of every `agentrl ...` that stands in a block of its own."""
    for block in blocks(page, "bash", ""):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("agentrl "):
                yield shlex.split(line, comments=True)[1:]


@pytest.mark.parametrize("page", READ, **named)
def test_every_command_and_its_options_exist(page: Path) -> None:
    for given in commands(page):
        command, rest = typer.main.get_command(app(["run"])), list(given)
        while rest and rest[0] in getattr(command, "commands", {}):
            command = command.commands[rest.pop(0)]  # type: ignore[attr-defined]
        known = {name for parameter in command.params for name in parameter.opts}
        if not command.ignore_unknown_options and given[0] != "graph":  # that one is a plugin's
            unknown = {each.partition("=")[0] for each in rest if each.startswith("-")} - known
            assert unknown <= {"--help"}, f"agentrl {shlex.join(given)}"


@pytest.mark.parametrize("page", READ, **named)
def test_every_run_could_start(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_agent.py").write_text("".join(blocks(page, "python")))
    for given in commands(page):
        if given[0] == "run" and "--env" in given and not WRITTEN & set(re.split(r"\W", " ".join(given))):
            said = options(given)
            rewards = parse_rewards(said.pop("reward", []))
            sets = said.pop("set", [])
            flags: dict[str, Any] = {
                name: values[-1] for name, values in said.items() if name not in NO_OPTION
            }
            resolve(flags={**flags, **({"rewards": rewards} if rewards else {})}, sets=sets)


def options(given: list[str]) -> dict[str, list[str]]:
    """Return the values of each option on a command line."""
    found: dict[str, list[str]] = {}
    for option, value in zip(given, [*given[1:], ""], strict=True):
        if option.startswith("--"):
            found.setdefault(option.removeprefix("--"), []).append(value)
    return found
