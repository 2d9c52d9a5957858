"""Setting up another virtual environment: once, step by step, going on where it was interrupted.

A shell script plays Python here; tests/test_other_environment.py has the real one, with pip.
"""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from agentrl import AgentRLError, Environment, RemoteEnv, SetupStep, Task, UsageError
from agentrl.cli.setup_options import read_options
from agentrl.hosting.elsewhere import Site, others_of, remove, set_up, site_of, size_of

PYTHON = """\
#!/bin/sh
here=$(dirname "$0")
echo "$@" >> {folder}/calls
case "$*" in
*venv*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
*pip*) [ -e {folder}/hang ] && echo $$ > {folder}/hanging
  while [ -e {folder}/hang ]; do sleep 0.1; done; echo "pip at work" ;;
*"fetch "*) [ -e {folder}/offline ] && echo "trying" && echo "no network" && exit 3
  echo "$@" > {folder}/fetched ;;
*broken*) [ -e {folder}/broken ] && echo "a long story" && echo "its sad end" >&2 && exit 7 ;;
*) echo "$PWD $PLACE $PYTHONPATH" > {folder}/step ;;
esac
exit 0
"""
TITLES = ["create the virtual environment", "install the requirements", "unpack", "check"]


class Elsewhere(RemoteEnv):
    environment: ClassVar[Environment] = Environment(
        worker="world.py",
        requirements=("old-library<2",),
        steps=(SetupStep("unpack", ("unpack.py", "{package}")), SetupStep("check", ("-m", "broken"))),
        variables={"PLACE": "{files}/place"},
    )

    def tasks(self, split: str) -> Sequence[Task]:
        return []


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    python = tmp_path / "python"
    python.write_text(PYTHON.format(folder=tmp_path))
    python.chmod(0o755)
    return replace(site_of(Elsewhere, "far"), base=python)


def calls(folder: Path) -> list[str]:
    """Return what was run since the last call, in short."""
    path = folder / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    names = ("venv", "pip", "unpack", "broken")
    return [next((n for n in names if n in line.split("--disable")[0]), line) for line in lines]


def test_an_environment_is_built_step_by_step_once(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "ours")
    told: list[tuple[int, int, str, str]] = []
    set_up(site, report=lambda *what: told.append(what))
    assert site.ready
    assert calls(tmp_path) == ["venv", "pip", "unpack", "broken"]
    assert [what[:3] for what in told if not what[3]] == [(n, 4, t) for n, t in enumerate(TITLES, start=1)]
    assert (2, 4, TITLES[1], "pip at work") in told
    assert (tmp_path / "step").read_text() == f"{site.files} {site.files}/place \n"
    set_up(site)
    assert calls(tmp_path) == []
    set_up(site, force=True)
    assert calls(tmp_path) == ["venv", "pip", "unpack", "broken"]


def test_a_step_that_fails_is_told_with_the_log_and_its_last_lines(site: Site, tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    with pytest.raises(AgentRLError) as failure:
        set_up(site)
    said = str(failure.value)
    assert "the environment of the env 'far' could not be set up: the step 'check' failed with exit" in said
    assert said.endswith(f"the log is {site.log}, and ends with:\na long story\nits sad end")
    assert "# unpack: " in site.log.read_text()
    assert not site.ready
    with pytest.raises(UsageError, match="is set up only in part; set it up with: agentrl env setup far"):
        site.require()
    calls(tmp_path)
    (tmp_path / "broken").unlink()
    set_up(site)
    assert calls(tmp_path) == ["broken"], "what was done is not done again"
    assert site.ready


def until_pip_hangs(folder: Path) -> None:
    deadline = time.monotonic() + 60
    while not (folder / "hanging").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# What was started in the background of a shell ignores interrupts; so does whoever tests it there.
SETUP = """
import signal
import sys
from dataclasses import replace
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, {tests!r})
from test_hosting_elsewhere_setup import Elsewhere
from agentrl.hosting.elsewhere import set_up, site_of

sys.modules[sys.argv[2]] = sys.modules[Elsewhere.__module__]
Elsewhere.__module__ = sys.argv[2]
set_up(replace(site_of(Elsewhere, "far"), base=Path(sys.argv[1])))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_installation_is_done_again_from_the_beginning(
    number: signal.Signals, site: Site, tmp_path: Path
) -> None:
    (tmp_path / "hang").touch()
    script = textwrap.dedent(SETUP).format(tests=str(Path(__file__).parent))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script, str(site.base), Elsewhere.__module__]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as building:
        until_pip_hangs(tmp_path)
        with pytest.raises(AgentRLError, match=f"is being set up by process {building.pid}; wait until"):
            set_up(site)
        with pytest.raises(AgentRLError, match="is being set up"):
            remove(site)
        building.send_signal(number)
    if number == signal.SIGKILL:
        with pytest.raises(AgentRLError, match="is being set up"):
            set_up(site)  # pip has outlived who called it
        os.killpg(int((tmp_path / "hanging").read_text()), signal.SIGKILL)
    (tmp_path / "hang").unlink()
    calls(tmp_path)
    set_up(site, wait=True)
    assert calls(tmp_path) == ["venv", "pip", "unpack", "broken"]
    assert site.ready


def test_whoever_waits_for_another_set_up_has_what_that_has_done(site: Site, tmp_path: Path) -> None:
    (tmp_path / "hang").touch()
    with ThreadPoolExecutor() as threads:
        first = threads.submit(set_up, site)
        until_pip_hangs(tmp_path)
        second = threads.submit(set_up, site, wait=True)
        time.sleep(0.2)
        assert not second.done()
        (tmp_path / "hang").unlink()
        second.result(60)
        first.result(60)
    assert calls(tmp_path) == ["venv", "pip", "unpack", "broken"]


FETCH = SetupStep("fetch", ("fetch", "{files}"), option="--data", help="more to play with")
CARRY = SetupStep("carry", ("fetch", "{value}"), option="--bundle", value="FILE")


@pytest.fixture
def richer(site: Site) -> Site:
    """Return the site of an env whose set-up has options."""
    steps = (*site.environment.steps, FETCH, CARRY)
    return replace(site, environment=replace(site.environment, steps=steps))


def test_a_step_with_an_option_is_done_when_it_is_asked_for(richer: Site, tmp_path: Path) -> None:
    told: list[tuple[int, int, str, str]] = []
    set_up(richer)
    assert richer.ready
    assert calls(tmp_path) == ["venv", "pip", "unpack", "broken"]
    set_up(richer, options={"--data": ""}, report=lambda *what: told.append(what))
    assert calls(tmp_path) == [f"fetch {richer.files}"], "and nothing that was done before"
    assert told[0] == (5, 5, "fetch", "")
    set_up(richer, options={"--bundle": "/there/it is"})
    assert (tmp_path / "fetched").read_text() == "fetch /there/it is\n"
    set_up(richer, options={"--data": ""})
    assert richer.ready
    assert richer.done == [*TITLES, "fetch", "carry"]


def test_an_env_can_be_played_without_what_was_asked_for_and_failed(richer: Site, tmp_path: Path) -> None:
    (tmp_path / "offline").touch()
    with pytest.raises(AgentRLError) as failure:
        set_up(richer, options={"--data": ""})
    assert str(failure.value) == (
        "the step 'fetch' failed with exit code 3: no network; the env 'far' can be played without it; "
        f"the log is {richer.log}"
    )
    assert richer.ready
    assert richer.done == TITLES


@pytest.mark.parametrize(
    ("said", "options"),
    [
        (["--data"], {"--data": ""}),
        (["--bundle", "x", "--data"], {"--bundle": "x", "--data": ""}),
        (["--bundle=x=y"], {"--bundle": "x=y"}),
        ([], {}),
    ],
)
def test_options_of_a_set_up_are_read(said: list[str], options: dict[str, str], richer: Site) -> None:
    assert read_options(richer, said) == options


def test_a_path_among_the_options_is_made_absolute(
    richer: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundle").touch()
    assert read_options(richer, ["--bundle", "bundle"]) == {"--bundle": str(tmp_path / "bundle")}


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (["--dta"], "the set-up of the env 'far' has no '--dta'; did you mean '--data'?"),
        (
            ["--everything"],
            "the set-up of the env 'far' has no '--everything'; besides --force it has "
            "--data: more to play with; --bundle FILE: carry",
        ),
        (["--bundle"], "--bundle of the env 'far' takes FILE"),
        (["--data=all"], "--data of the env 'far' takes no value"),
    ],
)
def test_options_that_do_not_fit_are_refused(said: list[str], message: str, richer: Site) -> None:
    with pytest.raises(UsageError) as refused:
        read_options(richer, said)
    assert str(refused.value) == message


def test_a_removed_environment_leaves_nothing(site: Site) -> None:
    assert remove(site) == 0
    set_up(site)
    size = size_of(site)
    assert size > 0
    assert remove(site) >= size
    assert not site.folder.exists()


def test_the_place_changes_with_what_the_environment_is_made_of(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def place(**changes: object) -> Path:
        monkeypatch.setattr(Elsewhere, "environment", replace(Elsewhere.environment, **changes))  # type: ignore[arg-type]
        return site_of(Elsewhere, "far").folder

    assert place(memory_mb=100, worker="other.py", episodes=2) == site.folder
    others = {place(requirements=("new",)), place(steps=()), place(python=f"=={_version()}.*", variables={})}
    assert len({site.folder, *others}) == 4
    assert site.folder.parent.parts[-2:] == ("agentrl", "environments")


def test_the_place_changes_with_the_files_that_steps_depend_on(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("build.py", "world/things.py", "world/__pycache__/things.pyc", "aside.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    step = SetupStep("build", ("{package}/build.py", "{files}"), sources=("world",))
    option = SetupStep("more", ("{package}/aside.py",), option="--more")
    monkeypatch.setattr(Elsewhere, "environment", replace(Elsewhere.environment, steps=(step, option)))
    monkeypatch.setattr("agentrl.hosting.elsewhere.site._folder_of", lambda env: tmp_path)
    first = site_of(Elsewhere, "far").folder
    for name in ("aside.py", "world/__pycache__/things.pyc"):
        (tmp_path / name).write_text("2")
    assert site_of(Elsewhere, "far").folder == first
    places = {first}
    for name in ("build.py", "world/things.py", "world/new.py"):
        (tmp_path / name).write_text("2")
        places.add(site_of(Elsewhere, "far").folder)
    assert len(places) == 4


def test_older_versions_are_found_and_copies_elsewhere_are_left_alone(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = replace(site, folder=site.folder.with_name(f"{site.folder.name.rpartition('-')[0]}-0123"))
    copy = replace(site, folder=older.folder.with_name(f"{older.folder.name}4"), package=tmp_path)
    gone = replace(copy, folder=copy.folder.with_name(f"{copy.folder.name}5"), package=tmp_path / "gone")
    foreign = replace(site, folder=gone.folder.with_name(f"{gone.folder.name}6"), target="other:Env")
    for each in (site, older, copy, gone, foreign):
        set_up(each)
    assert [each.folder for each in others_of(site)] == [older.folder, gone.folder]


def _version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def test_a_python_that_is_not_here_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Elsewhere, "environment", Environment(worker="world.py", python=">=3.99"))
    with pytest.raises(UsageError, match=r"the env 'far' needs Python >=3.99, which was not found here"):
        site_of(Elsewhere, "far")


# The commands

PLUGIN = """
from typing import ClassVar
from agentrl import Env, Environment, Observation, Outcome, RemoteEnv, SetupStep

class Far(RemoteEnv):
    environment: ClassVar = Environment(
        worker="world.py",
        steps=(
            SetupStep("greet", ("-c", "print('hello')")),
            SetupStep("sing", ("-c", "print('{{value}}')"), option="--song", value="TITLE"),
        ),
        variables={{"VERSION": "{version}"}},
    )
    def tasks(self, split): return []
"""


def agentrl(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agentrl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("toys")
def test_the_commands_show_set_up_and_remove(
    install: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "250")
    plugin = {"far_plugin": PLUGIN.format(version=1)}
    place = install("far", {"agentrl.envs": {"far": "far_plugin:Far"}}, modules=plugin)  # type: ignore[operator]
    choice = ["--env", "far", "--agent", "toy", "--reward", "toy"]
    refused = agentrl("run", *choice, "--out", str(tmp_path / "run"))
    assert refused.returncode == 2
    assert refused.stderr.strip() == (
        "error: the env 'far' plays in a virtual environment of its own, which is not set up; "
        "set it up with: agentrl env setup far"
    )
    assert not (tmp_path / "run").exists()
    assert _row(agentrl("env", "status").stdout)[:2] == ["far", "missing"]
    tried = agentrl("run", *choice, "--setup", "--out", str(tmp_path / "run"))
    assert "[3/3] greet" in tried.stdout, tried.stderr
    assert _row(agentrl("env", "status", "far").stdout)[:2] == ["far", "ready"]
    assert "is set up in" in agentrl("env", "setup", "far").stdout
    assert "agentrl env setup far --song TITLE: sing\n" in agentrl("env", "status", "far").stdout
    assert "[4/4] sing" in agentrl("env", "setup", "far", "--song", "Summertime").stdout
    assert "--song TITLE: sing (done)" in agentrl("env", "status", "far").stdout
    refused = agentrl("env", "setup", "far", "--sng", "x")
    assert (refused.returncode, "did you mean '--song'?" in refused.stderr) == (2, True)

    (place / "far_plugin.py").write_text(PLUGIN.format(version=2))
    agentrl("env", "setup", "far")
    assert _states(agentrl("env", "status").stdout) == ["ready", "older"]
    assert agentrl("env", "remove", "far", "--older").stdout.count("removed") == 1
    assert _states(agentrl("env", "status", "far").stdout) == ["ready"]
    assert "there is none of an older version" in agentrl("env", "remove", "far", "--older").stdout
    (place / "far_plugin.py").write_text(PLUGIN.format(version=3))
    agentrl("env", "setup", "far")
    assert agentrl("env", "remove", "far").stdout.count("removed") == 2
    assert "there is nothing in" in agentrl("env", "remove", "far").stdout


def _row(table: str) -> list[str]:
    return next(line.split() for line in table.splitlines() if line.split()[:1] == ["far"])


def _states(table: str) -> list[str]:
    return [line.split()[1] for line in table.splitlines() if line.split()[:1] == ["far"]]


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize(
    "arguments", [("env", "setup", "toy"), ("run", "--env", "toy", "--setup", "--steps", "0")]
)
def test_an_env_that_needs_no_environment_says_so(arguments: Sequence[str], tmp_path: Path) -> None:
    refused = agentrl(*arguments)
    assert refused.returncode == 2
    assert "the env 'toy' needs no virtual environment of its own" in refused.stderr
