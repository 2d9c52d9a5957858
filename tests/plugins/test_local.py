"""The runtime `local`: processes of this machine, each with a connection, its GPUs, and an end."""

import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from agentrl.plugins import make
from agentrl.runtime import Peer, Plan, Program
from agentrl_local import Local, visible_gpus

ECHO = """
import os, sys
from multiprocessing.connection import Connection

connection = Connection(int(sys.argv[1]))
try:
    while True:
        said = connection.recv()
        if isinstance(said, int):
            sys.exit(said)
        connection.send((said, os.environ.get("PLACE"), sys.stdin.read()))
except EOFError:
    pass
"""
PROGRAM = Program("echo_for_runtimes", "engine", 0, variables={"PLACE": "here"})


@pytest.fixture
def echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a module that says what it is told."""
    (tmp_path / "echo_for_runtimes.py").write_text(ECHO)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def launch(*programs: Program) -> list[Peer]:
    runtime = make("runtime", "local")
    runtime.start(Plan())
    return runtime.launch(programs or [PROGRAM])


@pytest.mark.usefixtures("echo")
def test_a_process_hears_and_answers_with_the_variables_it_was_given() -> None:
    (peer,) = launch()
    peer.connection.send({"any": "thing"})
    assert peer.connection.recv() == ({"any": "thing"}, "here", "")
    peer.connection.close()
    assert peer.epitaph() == "ended with exit code 0"
    peer.end(0.0)


@pytest.mark.usefixtures("echo")
def test_a_process_that_ends_ends_its_connection_and_it_is_known_how() -> None:
    one, other = launch(PROGRAM, replace(PROGRAM, number=1))
    one.connection.send(7)
    os.kill(other.pid, signal.SIGKILL)
    for peer, how in ((one, "ended with exit code 7"), (other, "was killed by signal 9")):
        with pytest.raises(EOFError):
            peer.connection.recv()
        assert peer.epitaph() == how
        peer.end(0.0)
        peer.connection.close()


@pytest.mark.usefixtures("echo")
def test_a_process_that_does_not_end_is_ended() -> None:
    (peer,) = launch()
    os.kill(peer.pid, signal.SIGSTOP)
    peer.end(0.0)
    peer.end(0.0)
    assert peer.epitaph() == "was killed by signal 9"
    assert not Path(f"/proc/{peer.pid}").exists()
    peer.connection.close()


@pytest.mark.usefixtures("echo")
def test_if_one_process_cannot_be_started_none_is(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def second_fails(*arguments: object, **more: object) -> "subprocess.Popen[bytes]":
        if begun:
            raise OSError("no more")
        begun.append(real(*arguments, **more))
        return begun[0]

    monkeypatch.setattr(subprocess, "Popen", second_fails)
    with pytest.raises(OSError, match="no more"):
        launch(PROGRAM, PROGRAM)
    assert begun[0].returncode == -signal.SIGKILL


@pytest.mark.usefixtures("echo")
def test_files_stay_where_they_are_and_what_was_received_is_gone_afterwards(tmp_path: Path) -> None:
    (peer,) = launch()
    assert peer.deliver(tmp_path) == tmp_path
    with peer.received(3, lambda path: path.write_bytes(b"abc")) as path:
        assert path.read_bytes() == b"abc"
    assert not path.parent.exists()
    peer.end(0.0)
    peer.connection.close()


def test_those_who_meet_come_to_a_file_that_is_not_there_yet() -> None:
    with Local().meeting([]) as place:
        kind, _, path = place.partition("://")
        assert kind == "file"
        assert Path(path).parent.is_dir()
        assert not Path(path).exists()
    assert not Path(path).parent.exists()


def shown(role: str, device: str, count: int, gpus: int = 1) -> list[str | None]:
    programs = [Program("module", role, number, device, gpus) for number in range(count)]
    return [variables.get("CUDA_VISIBLE_DEVICES") for variables in visible_gpus(programs)]


def test_each_process_sees_only_its_own_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="counts GPUs with torch")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert shown("trainer", "cpu", 2) == [None, None]
    assert shown("trainer", "cuda", 2) == ["4", "5"]
    assert shown("trainer", "cuda:2", 2) == ["6", "7"]
    assert shown("engine", "cuda", 2, gpus=2) == ["4,5", "6,7"]
    assert shown("engine", "cuda:3", 2) == ["7", "4"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert shown("trainer", "cuda:1", 1) == ["1"]
    assert Program("module", "trainer", 1, "cuda:1").own_device == "cuda:0"
    assert Program("module", "trainer", 1).own_device == "cpu"
