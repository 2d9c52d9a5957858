"""`agentrl plugins search` and `install`: real wheels, in a virtual environment of the test's own."""

import os
import subprocess
import sys
import venv
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from agentrl.errors import AgentRLError, UsageError
from agentrl.installer import Where, distribution_named, named, places, require_pip

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build wheels of two versions of a reward, and one of a reward for another core."""
    folder = tmp_path_factory.mktemp("wheels")
    for name, version, core in [
        ("brevity", "0.1.0", ">=0.1,<0.2"),
        ("brevity", "0.2.0", ">=0.1,<0.2"),
        ("future", "1.0", ">=99"),
    ]:
        source = folder / f"{name}-{version}"
        python(Path.cwd(), "agentrl", "new", "reward", name, "--into", str(source))
        project = source / "pyproject.toml"
        text = project.read_text().replace('version = "0.1.0"', f'version = "{version}"')
        # The core is installed in this environment as it is, from no index: who asks for none gets it.
        project.write_text(text.replace('["agentrl-platform>=0.1,<0.2"]', _requirement(core)))
        build = [
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(folder),
            str(source),
        ]
        python(folder, *build)
    return folder


def _requirement(core: str) -> str:
    return f'["agentrl-platform{core}"]'


def python(folder: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory,
    make_environment: Callable[[Path], Mapping[str, str]],
    wheels: Path,
) -> Run:
    """Return the command `agentrl` of a virtual environment of its own, whose pip looks at the wheels."""
    folder = tmp_path_factory.mktemp("place")
    environment = {**make_environment(folder / "venv"), "PIP_FIND_LINKS": str(wheels)}

    def agentrl(*arguments: str, typed: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["agentrl", *arguments],
            executable=folder / "venv" / "bin" / "agentrl",
            input=typed,
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )

    return agentrl


def test_search_says_where_it_looks_and_what_it_finds(run: Run, wheels: Path) -> None:
    done = run("plugins", "search", "brevity")
    assert done.returncode == 0, done.stderr
    assert "pip can be asked for exact names only" in done.stdout
    assert f"pip looks in: {wheels}\n" in done.stdout
    assert "pip finds: agentrl-brevity 0.2.0, and 1 older, down to 0.1.0\n" in done.stdout
    assert done.stdout.endswith("To install: agentrl plugins install agentrl-brevity\n")


def test_search_that_finds_nothing_fails_and_says_what_is_installed(run: Run) -> None:
    done = run("plugins", "search", "grpo", "nothing_like_it")
    assert done.returncode == 2
    assert "installed: algorithm grpo of agentrl-platform " in done.stdout
    assert done.stderr == "error: pip finds no distribution agentrl-grpo or agentrl-nothing-like-it\n"


def test_install_says_what_it_will_do_and_does_nothing_unless_told(run: Run) -> None:
    done = run("plugins", "install", "agentrl-brevity==0.1.0", typed="n\n")
    assert done.returncode == 2
    assert "-m pip install agentrl-brevity==0.1.0\n" in done.stdout
    assert "  agentrl-brevity 0.1.0, from file://" in done.stdout
    assert done.stderr == "error: nothing was installed; --yes installs without asking\n"
    assert run("plugins", "install", "agentrl-brevity", typed="").returncode == 2
    assert "agentrl-brevity" not in run("plugins").stdout


def test_what_is_installed_is_listed_with_where_it_is_from_and_can_be_upgraded(run: Run) -> None:
    done = run("plugins", "install", "agentrl-brevity==0.1.0", typed="y\n")
    assert done.returncode == 0, done.stderr
    assert "new: reward brevity of agentrl-brevity 0.1.0; see `agentrl plugins brevity`\n" in done.stdout
    listed = [line.split() for line in run("plugins").stdout.splitlines()]
    assert ["reward", "brevity", "agentrl-brevity", "0.1.0"] in listed
    provenance = "agentrl-brevity 0.1.0 <0.2,>=0.1 pip: a package index, or a folder of wheels"
    assert provenance.split() in listed
    again = run("plugins", "install", "agentrl-brevity")
    assert (again.returncode, again.stdout.splitlines()[-1]) == (
        0,
        "There is nothing to do: all of it is installed already.",
    )
    newer = run("plugins", "install", "--upgrade", "--yes", "agentrl-brevity")
    assert "  agentrl-brevity 0.2.0, in place of 0.1.0, from file://" in newer.stdout
    assert "new: reward brevity of agentrl-brevity 0.2.0" in newer.stdout


def test_a_folder_cannot_be_told_beforehand_and_is_said_to_be_editable(run: Run, wheels: Path) -> None:
    python(wheels, "agentrl", "new", "reward", "mine", "--into", "mine")
    done = run("plugins", "install", "--editable", str(wheels / "mine"), typed="y\n")
    assert done.returncode == 0, done.stderr
    assert "What that installs cannot be told beforehand" in done.stdout
    assert "new: reward mine of agentrl-mine 0.1.0" in done.stdout
    assert f"pip: editable, {wheels / 'mine'}" in run("plugins", "mine").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["install", "agentrl-nothing"], "error: there is no distribution agentrl-nothing; pip looks in: "),
        (["install"], "error: name what is to be installed: agentrl plugins install NAME"),
        (["search", "not/a/name"], "error: 'not/a/name' cannot be the name of a distribution"),
    ],
)
def test_wrong_usage_is_one_sentence(run: Run, arguments: list[str], message: str) -> None:
    done = run("plugins", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1


def test_a_plugin_for_another_core_is_not_installed(run: Run) -> None:
    done = run("plugins", "install", "--yes", "agentrl-future")
    assert done.returncode == 1
    assert "agentrl-platform>=99" in done.stderr
    assert "error: pip ended with 1, and says above why; the command was: " in done.stderr


def test_a_python_without_pip_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv.create(tmp_path, with_pip=False, symlinks=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(AgentRLError, match=r"has no pip; make one with .* -m ensurepip"):
        require_pip()


# What is asked for


def test_a_plugin_is_looked_for_as_agentrl_new_would_call_it() -> None:
    assert distribution_named("my_game") == "agentrl-my-game"
    assert distribution_named("agentrl-Countdown") == "agentrl-countdown"
    with pytest.raises(UsageError, match="cannot be the name of a distribution"):
        distribution_named("--index-url")


def test_names_are_told_from_folders_and_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    asked = [
        "agentrl-x>=1",
        "here",
        "./agentrl-x",
        "x @ https://example.org/x.whl",
        "git+https://example.org/x",
    ]
    assert [named(each) for each in asked] == ["agentrl-x", None, None, None, None]


def test_passwords_in_addresses_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv(
        "PIP_EXTRA_INDEX_URL", "https://me:secret@example.org/simple https://example.com/simple"
    )
    shown = places(Where(index_url="https://token@example.net/simple"))
    assert shown[:3] == [
        "https://example.net/simple",
        "https://example.org/simple",
        "https://example.com/simple",
    ]
