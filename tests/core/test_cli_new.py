"""`agentrl new` writes plugins that work: installed as pip installs them, tested, checked, used by name."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest

from agentrl.cli import main
from agentrl.discovery import list_plugins
from agentrl.scaffold import LONGEST, Blank

# Names of all lengths: what is written has to be well-formed with any of them.
NAMES = {
    "env": "errands",
    "agent": "x",
    "reward": "brevity",
    "algorithm": "an_algorithm_with_quite_a_long_name",
    "hook": "notes2",
    "engine": "dice",
}
KINDS = sorted(NAMES)
# Of those kinds that have no tutorial, which would be followed: what makes the use of one short.
BRIEFLY = {
    "hook": "--warmup 1 --steps 1 --set tasks_per_step=2 --set group_size=2 --set evaluation.tasks=4",
    "engine": "--tasks 4",
}
needs_torch = pytest.mark.skipif(not find_spec("torch"), reason="training needs torch")


def called(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert isinstance(caught.value.code, int)
    return caught.value.code


def folder_of(kind: str) -> str:
    return f"agentrl-{NAMES[kind].replace('_', '-')}"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a plugin of every kind, and return the folder they are in."""
    place = tmp_path_factory.mktemp("new")
    for kind, name in NAMES.items():
        assert called("new", kind, name, "--into", place / folder_of(kind)) == 0
    return place


@pytest.fixture(scope="module")
def installed(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Install them beside this environment, and return the variables under which they are found."""
    site = tmp_path_factory.mktemp("site")
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", *offline, "--target", str(site)]
    subprocess.run([*command, *(str(written / folder_of(kind)) for kind in KINDS)], check=True)
    path = os.pathsep.join([str(site), *(str(Path(entry).absolute()) for entry in sys.path if entry)])
    return {**os.environ, "PYTHONPATH": path}


def run(folder: Path, environment: Mapping[str, str], *arguments: str) -> str:
    """Return what `python -m` prints."""
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# What is written


def test_it_says_what_it_wrote_and_what_to_do_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert called("new", "env", "my_game") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:5] == [
        "wrote agentrl-my-game/README.md",
        "wrote agentrl-my-game/agentrl_my_game/__init__.py",
        "wrote agentrl-my-game/agentrl_my_game/py.typed",
        "wrote agentrl-my-game/pyproject.toml",
        "wrote agentrl-my-game/tests/test_my_game.py",
    ]
    commands = [line.strip().partition("  #")[0] for line in lines[7:]]
    assert lines[6] == "What to do next:"
    assert commands == [
        "cd agentrl-my-game",
        "pip install -e .",
        "agentrl check my_game",
        "agentrl run --env my_game --algo grpo",
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_the_templates_name_is_left(kind: str, written: Path) -> None:
    for path in (written / folder_of(kind)).rglob("*"):
        texts = [str(path.relative_to(written)), path.read_text() if path.is_file() else ""]
        assert not any(f"my{mark}{kind}" in text.lower() for text in texts for mark in ("_", "-", ""))


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("env", "2048", "it takes lower-case letters, digits and single underscores, such as 'my_game'"),
        ("env", "My-Game", "it takes lower-case letters, digits and single underscores, such as 'my_game'"),
        ("env", "a" * (LONGEST + 1), "it is longer than 40 characters; choose a shorter one"),
        ("env", "class", "it is a word of Python's own; choose another, such as 'my_class'"),
        ("env", "house", "has one that is called so; choose another name"),
        ("reward", "house", "a package agentrl_house is installed already; choose another name"),
        ("env", "task", "its class would be called Task, as something else is; try 'task_env'"),
        ("hook", "exception", "its class would be called Exception, as something else is; try"),
    ],
)
def test_a_bad_name_is_refused_in_a_sentence(
    kind: str, name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called("new", kind, name, "--into", tmp_path / "new") == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").write_text("precious")
    assert called("new", "reward", "brevity", "--into", tmp_path) == 2
    assert "is there already; name a folder that is not, with --into" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_plugin_is_made_for_this_version_of_the_core(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("agentrl.__version__", "1.7.3")
    list(Blank.of("reward", "brevity").write(tmp_path))
    assert '"agentrl-platform>=1.7,<1.8"' in (tmp_path / "pyproject.toml").read_text()


# What works


@pytest.mark.parametrize("kind", KINDS)
def test_its_own_tests_pass(kind: str, written: Path, installed: Mapping[str, str]) -> None:
    if kind == "algorithm":
        pytest.importorskip("torch", reason="the loss needs the extra torch")
    quiet = ["-q", "-p", "no:cacheprovider"]
    said = run(written / folder_of(kind), installed, "pytest", *quiet)
    assert "passed" in said
    assert "warning" not in said


def test_it_is_listed(installed: Mapping[str, str], tmp_path: Path) -> None:
    rows = [line.split()[:4] for line in run(tmp_path, installed, "agentrl", "plugins").splitlines()]
    for kind, name in NAMES.items():
        assert [kind, name, folder_of(kind), "0.1.0"] in rows


# The tutorials check plugins of the other kinds.
@pytest.mark.parametrize("kind", sorted(BRIEFLY))
def test_it_passes_its_check(kind: str, installed: Mapping[str, str], tmp_path: Path) -> None:
    said = run(tmp_path, installed, "agentrl", "check", NAMES[kind])
    assert said.startswith(f"{kind} {NAMES[kind]} of {folder_of(kind)} 0.1.0\n  passed ")
    assert "FAILED" not in said


@pytest.mark.skipif(not find_spec("ruff"), reason="ruff is not installed: the extra test brings it")
def test_it_is_linted_and_formatted_with_names_of_any_length(tmp_path: Path) -> None:
    for kind in KINDS:
        for name in {"x", "l" + (LONGEST - 2) * "o" + "g", *NAMES.values()}:
            list(Blank.of(kind, name).write(tmp_path / kind / name))
    for arguments in (["check"], ["format", "--check"]):
        run(tmp_path, os.environ, "ruff", *arguments, "--no-cache", ".")


@pytest.mark.skipif(not find_spec("mypy"), reason="mypy is not installed: the extra test brings it")
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_its_types_are_strict(written: Path, tmp_path: Path) -> None:
    for kind in KINDS:
        run(written / folder_of(kind), os.environ, "mypy", "--cache-dir", str(tmp_path))


@needs_torch
def test_an_env_a_reward_and_an_algorithm_are_trained_with_by_name(
    installed: Mapping[str, str], tmp_path: Path
) -> None:
    small = {"tasks_per_step": 2, "group_size": 2, "evaluation.tasks": 4, "threads": 1, "env.train": 20}
    options = [part for key, value in small.items() for part in ("--set", f"{key}={value}")]
    choice = ["--env", NAMES["env"], "--algo", NAMES["algorithm"], "--reward", "success"]
    shaped = ["--reward", f"{NAMES['reward']}:0.1", "--agent", NAMES["agent"]]
    length = ["--warmup", "1", "--steps", "1", "--out", "run"]
    run(tmp_path, installed, "agentrl", "run", *choice, *shaped, *length, *options)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert {"success", NAMES["reward"]} <= set(summary["metrics"])
    table = (tmp_path / "run" / f"{NAMES['hook']}.csv").read_text().splitlines()
    assert table[0] == "step,success,reward"
    assert len(table) == 2


@needs_torch
def test_an_engine_plays_by_name(installed: Mapping[str, str], tmp_path: Path) -> None:
    choice = ["--env", NAMES["env"], "--engine", NAMES["engine"], "--tasks", "4", "--out", "chance.json"]
    run(tmp_path, installed, "agentrl", "eval", *choice)
    assert json.loads((tmp_path / "chance.json").read_text())["metrics"]["success"]["mean"] == 0


@needs_torch
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", sorted(BRIEFLY))
def test_its_readme_can_be_followed_in_a_fresh_environment(
    kind: str, written: Path, tmp_path: Path, make_environment: Callable[[Path], Mapping[str, str]]
) -> None:
    environment = make_environment(tmp_path / "venv")
    folder = Path(shutil.copytree(written / folder_of(kind), tmp_path / "work"))
    lines = (folder / "README.md").read_text().splitlines()
    commands = [line.strip().partition("  #")[0] for line in lines if line.startswith("    ")]
    install, check, use = commands[:3]
    assert install == "pip install -e ."
    for command in (install, "pytest -q -p no:cacheprovider", check, f"{use} {BRIEFLY[kind]}"):
        done = subprocess.run(
            command, shell=True, capture_output=True, text=True, env=environment, cwd=folder, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def test_there_is_a_template_of_each_of_these_kinds() -> None:
    import agentrl

    folder = Path(agentrl.__file__).parent / "templates"
    assert sorted(path.name for path in folder.iterdir()) == KINDS
    assert {f"my_{kind}" for kind in KINDS}.isdisjoint(info.name for info in list_plugins())
