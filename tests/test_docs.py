"""What the documents point at exists, the Python in them runs, and their commands and options are ours."""

import ast
import asyncio
import re
import shlex
import signal
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from agentrl import Action, UsageError
from agentrl.cli import app
from agentrl.cli.arguments import parse_rewards
from agentrl.config import resolve
from agentrl.plugins import names
from agentrl.settings import CHOICES
from agentrl_house import House

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
OTHERS = sorted([*ROOT.glob("examples/*/README.md"), *ROOT.glob("core/agentrl/templates/*/README.md")])
# The tutorials are followed from end to end, in test_tutorials.
READ = [page for page in PAGES if page.stem != "publishing" and not page.stem.startswith("tutorial")]
BLOCK = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
# Plugins that the documents tell how to write.
WRITTEN = {"brevity"}
# What `agentrl run` is told that is no part of the configuration, or has to be there.
NO_OPTION = {"out", "setup", "model"}
# What a command begins with; a block that begins with anything else is what something prints.
COMMAND = re.compile(r"agentrl |pip |python|\.venv|apt-get |cd |--")
# What no test executes as it stands there, by its beginning, and why; an output by that of its first line.
NOT_RUN = {
    "python3 -m venv .venv && ": "CI executes both, the second being that of all tests",
    "python3 -m venv .venv-vllm": "of vLLM's environment, which takes gigabytes",
    ".venv-vllm/bin/": "of vLLM's environment, which takes gigabytes",
    "apt-get install": "it changes the machine; CI does it",
    "agentrl new reward brevity": "test_tutorials follows README's way to this reward",
    "cd agentrl-brevity": "test_tutorials follows README's way to this reward",
    "agentrl check brevity": "the tutorial of rewards does it",
    "agentrl run --env deepsearch --algo grpo --reward exact_match --reward brevity:0.1": "so does README's",
    "agentrl env setup appworld": "it fetches hundreds of megabytes; CI does it",
    "agentrl eval runs/RUN --split test_": "AppWorld has to be set up; its splits are tried where it is",
    "agentrl env play": "somebody has to type; test_cli_play does",
    "agentrl rescore RUN --reward f1 --reward llm_judge": "an endpoint is needed; its options are looked up",
    "agentrl doctor": "it looks for all there is, which takes its time; test_doctor does it",
    "python benchmarks/": "these take minutes to hours",
    "GiB ": "the model's config comes from a hub; test_recipes computes with one of its shape",
    "busy: ": "shares of time differ from run to run",
    "Goal: ": "test_normcore looks at what pages show",
    "Required, exactly once": "test_normcore looks at what is required",
}
# Settings of plugins that are not installed here: of the template, and of examples.
THEIRS = {"rewards.brevity.turns=3", "env.gyms=[lending]"}
SETTING = re.compile(r"""--set\s+('[^'\n]+'|[\w.]+=(?:"[^"\n]*"|'[^'\n]*'|[^\s`'"]+))""")
PLACEHOLDER = re.compile(r"=[A-Z]+$|OPTION")
OPTION = re.compile(rf"`((?:{'|'.join(CHOICES)}|simulator|evaluation|checkpoints)\.\w[\w.]*)[`=]")
RECIPE = """\
env: deepsearch
steps: 1
tasks_per_step: 2
group_size: 2
threads: 1
evaluation.tasks: 2
"""
named = {"ids": lambda page: str(page.relative_to(ROOT))}


def blocks(page: Path, *languages: str) -> Iterator[str]:
    """Yield the fenced blocks of a page in one of these languages; "" is that of a block without one."""
    for _, language, text in BLOCK.findall(page.read_text()):
        if language in languages:
            yield dedent(text)


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], **named)
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


def steps(page: Path) -> Iterator[str]:
    """Yield every command that stands in a block of its own, and the first line of all other blocks."""
    for block in blocks(page, "bash", "", "text"):
        lines = [line.partition("  #")[0].strip() for line in block.replace("\\\n", " ").strip().splitlines()]
        yield from lines if COMMAND.match(lines[0]) else lines[:1]


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the arguments of every `agentrl ...` that stands in a block of its own, or is indented as one."""
    indented = re.findall(r"(?m)^ {4}(agentrl .*)", page.read_text()) if page in OTHERS else []
    for step in [*steps(page), *indented]:
        if step.startswith("agentrl "):
            yield shlex.split(step, comments=True)[1:]


@pytest.mark.parametrize("page", [*READ, *OTHERS], **named)
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
    for step in filter(could_start, steps(page)):
        said = {"env": ["deepsearch"], **options(shlex.split(step, comments=True))}
        rewards = parse_rewards(said.pop("reward", []))
        sets = said.pop("set", [])
        flags: dict[str, Any] = {name: values[-1] for name, values in said.items() if name not in NO_OPTION}
        resolve(flags={**flags, **({"rewards": rewards} if rewards else {})}, sets=sets)


def could_start(step: str) -> bool:
    """Return whether it is a run with plugins that are here, or the end of one."""
    run = step.startswith("agentrl run --env ") and not WRITTEN & set(re.split(r"\W", step))
    return run or step.startswith("--")


def options(given: list[str]) -> dict[str, list[str]]:
    """Return the values of each option on a command line."""
    found: dict[str, list[str]] = {}
    for option, value in zip(given, [*given[1:], ""], strict=True):
        if option.startswith("--"):
            found.setdefault(option.removeprefix("--"), []).append(value)
    return found


# What no run has to be started for


@pytest.mark.parametrize("page", [page for page in READ if page.stem != "options"], **named)
def test_every_option_that_is_set_or_named_exists(page: Path) -> None:
    text = page.read_text()
    settings = {shlex.split(each)[0] for each in SETTING.findall(text)} - THEIRS
    settings |= {f"{key}=null" for key in OPTION.findall(text)}
    assert [each for each in settings if not PLACEHOLDER.search(each) and not known(each)] == []


def known(text: str) -> bool:
    """Return whether a run has the option that is set, with whichever plugin; it may need others, too."""
    part, _, option = text.partition("=")[0].partition(".")
    flags: list[dict[str, Any]] = [{}]
    if part in CHOICES and option:
        flags = [{part: name} for name in names(part)]
    elif part == "rewards":
        flags = [{"rewards": {option.partition(".")[0]: 1.0}}]
    for each in flags:
        try:
            resolve(flags={"env": "deepsearch", **each}, sets=[text])
        except UsageError as error:
            if "has no option" in str(error):
                continue
        return True
    return False


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], **named)
def test_every_extra_that_is_to_be_installed_exists(page: Path) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    own = r"(?:agentrl-platform|-e '\.)\[([\w,-]+)\]"
    wanted = {each for found in re.findall(own, page.read_text()) for each in found.split(",")}
    theirs = {"test"} if page.stem.startswith(("tutorial", "publishing")) or page in OTHERS else set()
    assert wanted <= {*extras, *theirs}


@pytest.mark.parametrize("page", PAGES, **named)
def test_every_block_of_toml_names_what_a_package_has(page: Path) -> None:
    for block in blocks(page, "toml"):
        assert tomllib.loads(block)["project"]["entry-points"]


def test_the_house_looks_as_it_is_printed() -> None:
    page = ROOT / "docs" / "house.md"
    number = int(re.findall(r"agentrl env play house --task (\d+)", page.read_text())[0])
    (printed,) = blocks(page, "text")
    env = House()

    async def play() -> list[str]:
        shown = [(await env.reset(env.tasks("train")[number], seed=0)).text]
        for action in re.findall(r"(?m)^    (.+)", printed):
            shown += [f"    {action}", (await env.step(Action(action))).text]
        return shown

    assert asyncio.run(play()) == printed.splitlines()


# What is done with a run


@pytest.fixture
def signals_restored() -> Iterator[None]:
    """Undo what a run does about signals."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals_restored")
def test_commands_on_a_run_work_as_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="training needs the extra torch")
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(RECIPE)
    written = [step for page in READ for step in steps(page) if is_executed(step)]
    first, *rest = dict.fromkeys(re.sub(r"\b(runs/)?RUN\b", "runs/mine", step) for step in written)
    assert first == "agentrl run recipe.yaml"
    for step in [f"{first} --out runs/mine", *rest]:
        arguments = shlex.split(step)[1:]
        done = CliRunner().invoke(app(arguments), arguments)
        assert done.exit_code == 0, f"{step}\n{done.output}"
    assert {"agentrl eval", "agentrl tasks", "agentrl rescore"} <= {
        " ".join(each.split()[:2]) for each in rest
    }


def is_executed(step: str) -> bool:
    """Return whether it is a command that takes but a moment."""
    return step.startswith("agentrl ") and not could_start(step) and not step.startswith(tuple(NOT_RUN))


def test_what_is_not_executed_is_listed_with_the_reason() -> None:
    found = [step for page in READ for step in steps(page)]
    looked_up = [step for step in found if could_start(step) or step.startswith("pip install")]
    (house,) = blocks(ROOT / "docs" / "house.md", "text")
    left = [step for step in found if step not in looked_up and not is_executed(step) and step not in house]
    assert [step for step in left if not step.startswith(tuple(NOT_RUN))] == []
    assert [begun for begun in NOT_RUN if not any(step.startswith(begun) for step in left)] == []
    languages = {language for page in READ for _, language, _ in BLOCK.findall(page.read_text())}
    assert languages <= {"", "bash", "text", "python", "toml", "diff"}
