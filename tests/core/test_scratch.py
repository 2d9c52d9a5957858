"""Folders between processes: who makes them removes them, and what a killed maker left is swept."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agentrl import scratch

MAKER = """
import sys, time
from agentrl.scratch import make_folder
print(make_folder("test", 10), flush=True)
time.sleep(60)
"""


@pytest.fixture(params=["memory", "disk"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if request.param == "memory" and scratch.shared_memory(10) is None:
        pytest.skip("there is no memory that files can be in")
    if request.param == "disk":
        monkeypatch.setattr(scratch, "shared_memory", lambda size: None)


@pytest.mark.usefixtures("place")
def test_a_folder_is_there_until_it_is_removed() -> None:
    with scratch.scratch("test", 10) as folder:
        assert list(folder.iterdir()) == [], "only what is handed over lies in it"
        (folder / "model").mkdir()
        assert scratch.sweep() == []
        assert folder.name.startswith("agentrl-test-")
    assert list(folder.parent.glob(f"*{folder.name}*")) == []
    scratch.remove_folder(folder)


def test_what_a_killed_process_leaves_is_deleted_when_the_next_folder_is_made() -> None:
    with subprocess.Popen([sys.executable, "-c", MAKER], stdout=subprocess.PIPE, text=True) as maker:
        assert maker.stdout is not None
        left = Path(maker.stdout.readline().strip())
        (left / "model").write_bytes(b"weights")
        with scratch.scratch("other"):
            assert left.is_dir(), "its maker lives"
        os.kill(maker.pid, signal.SIGKILL)
        maker.wait()
    assert left.is_dir()
    with scratch.scratch("other") as folder:
        assert list(left.parent.glob(f"*{left.name}*")) == []
        assert folder.is_dir()


def test_a_folder_of_another_kind_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch.tempfile, "gettempdir", lambda: str(tmp_path))
    (tmp_path / "agentrl-mine").mkdir()
    assert scratch.sweep() == []
    assert (tmp_path / "agentrl-mine").is_dir()
