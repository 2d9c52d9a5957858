"""Checkpoints: the last ones stay, and a broken one is neither written nor used."""

import errno
from pathlib import Path
from typing import Any

import pytest

from agentrl import AgentRLError, UsageError
from agentrl.checkpoints import Checkpoints


def write(text: str) -> Any:
    def save(folder: Path) -> None:
        (folder / "trainer").mkdir()
        (folder / "trainer/weights").write_text(text)

    return save


def test_the_last_checkpoints_stay(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (10, 20, 1_000_000):
        checkpoints.write(step, write(f"{step}"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000020", "step-1000000"]
    assert checkpoints.latest() == (1_000_000, tmp_path / "step-1000000")
    assert checkpoints.at(20) == tmp_path / "step-000020"
    with pytest.raises(UsageError, match=r"no complete checkpoint of step 30 .*there are: 20, 1000000"):
        checkpoints.at(30)


def test_a_checkpoint_is_replaced_by_one_of_the_same_step(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.write(10, write("old"))
    path = checkpoints.write(10, write("new"))
    assert (path / "trainer/weights").read_text() == "new"
    assert [each.name for each in tmp_path.iterdir()] == ["step-000010"]


def test_incomplete_checkpoints_are_passed_over_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(tmp_path, keep=5)
    good = checkpoints.write(10, write("x"))
    for step in (20, 30):
        checkpoints.write(step, write("x"))
    (tmp_path / "step-000030/contents.json").unlink()
    (tmp_path / "step-000020/trainer/weights").write_text("")
    (tmp_path / "step-000040.unfinished").mkdir()
    assert checkpoints.latest() == (10, good)
    assert "step-000040.unfinished was not finished" in caplog.text
    assert "step-000030 is ignored: its contents.json is missing or broken" in caplog.text
    assert "step-000020 is ignored: trainer/weights is missing or has another size" in caplog.text


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("PytorchStreamWriter failed")]
)
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path: Path, error: Exception) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.write(10, write("good"))

    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise error

    with pytest.raises(AgentRLError, match=r"could not write the checkpoint to .*step-000020: .*intact"):
        checkpoints.write(20, fail)
    assert [each.name for each in tmp_path.iterdir()] == ["step-000010"]
    assert checkpoints.latest() == (10, tmp_path / "step-000010")


def test_a_full_disk_in_a_librarys_words_has_its_remedy(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        raise RuntimeError("I/O error: No space left on device (os error 28)")

    checkpoints = Checkpoints(tmp_path, keep=1)
    with pytest.raises(AgentRLError, match=r"os error 28\) \(make room on the disk\)$"):
        checkpoints.write(10, fail)
    checkpoints.write(10, write("good"))
    with pytest.raises(AgentRLError, match=r"the checkpoints before it are intact$"):
        checkpoints.write(20, fail)
