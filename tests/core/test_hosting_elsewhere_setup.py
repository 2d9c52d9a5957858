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
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from agentrl import AgentRLError, Environment, RemoteEnv, SetupStep, Task, UsageError
from agentrl.hosting.elsewhere import Site, remove, set_up, site_of, size_of

PYTHON = """\
#!/bin/sh
here=$(dirname "$0")
echo "$@" >> {folder}/calls
case "$*" in
*venv*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
*pip*) [ -e {folder}/hang ] && echo $$ > {folder}/hanging && sleep 600; echo "pip at work" ;;
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
    return [next(name for name in names if name in line.split("--disable")[0]) for line in lines]


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
        deadline = time.monotonic() + 60
        while not (tmp_path / "hanging").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with pytest.raises(AgentRLError, match=f"is being set up by process {building.pid}; wait until"):
            set_up(site)
        with pytest.raises(AgentRLError, match="is being set up"):
            remove(site)
        building.send_signal(number)
    (tmp_path / "hang").unlink()
    if number == signal.SIGKILL:
        with pytest.raises(AgentRLError, match="is being set up"):
            set_up(site)  # pip has outlived who called it
        os.killpg(int((tmp_path / "hanging").read_text()), signal.SIGKILL)
        time.sleep(0.1)
    calls(tmp_path)
    set_up(site)
    assert calls(tmp_path) == ["venv", "pip", "unpack", "broken"]
    assert site.ready


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
        worker="world.py", steps=(SetupStep("greet", ("-c", "print('hello')")),)
    )
    def tasks(self, split): return []
"""


def agentrl(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agentrl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.usefixtures("toys")
def test_the_commands_show_set_up_and_remove(
    install: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "250")
    install("far", {"agentrl.envs": {"far": "far_plugin:Far"}}, modules={"far_plugin": PLUGIN})  # type: ignore[operator]
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
    assert "removed" in agentrl("env", "remove", "far").stdout
    assert "there is nothing in" in agentrl("env", "remove", "far").stdout


def _row(table: str) -> list[str]:
    return next(line.split() for line in table.splitlines() if line.split()[:1] == ["far"])


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize(
    "arguments", [("env", "setup", "toy"), ("run", "--env", "toy", "--setup", "--steps", "0")]
)
def test_an_env_that_needs_no_environment_says_so(arguments: Sequence[str], tmp_path: Path) -> None:
    refused = agentrl(*arguments)
    assert refused.returncode == 2
    assert "the env 'toy' needs no virtual environment of its own" in refused.stderr
