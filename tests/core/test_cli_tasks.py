from pathlib import Path
from typing import Any

import pytest

from agentrl.cli import main
from agentrl.config import resolve
from agentrl.rundir import RunDirectory

pytestmark = pytest.mark.usefixtures("toys")


def row(task: str, success: float, taught: bool, **more: Any) -> dict[str, Any]:
    counts = {"trajectories": 4, "failed": 0, "reward": success, "success": success}
    return {
        "task": task,
        "difficulty": None,
        "scenario": None,
        **counts,
        "taught": taught,
        "kept": taught,
        **more,
    }


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as caught:
        main(["tasks", *arguments])
    assert isinstance(caught.value.code, int)
    printed = capsys.readouterr()
    return caught.value.code, " ".join((printed.out + printed.err).split())


def test_the_tasks_of_a_run_are_shown_by_kind_and_one_by_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunDirectory.open(resolve({"env": "toy"}), tmp_path) as directory:
        directory.write_tasks(1, [row("a[1]", 0.5, True, difficulty=10), row("b", 0.0, False, difficulty=2)])
        directory.write_tasks(2, [row("a[1]", 1.0, False, difficulty=10)])
    code, text = shown(capsys, str(tmp_path))
    assert code == 0
    assert "steps 1 to 2: 2 tasks in 3 groups of 12 trajectories" in text
    assert "by scenario" not in text
    # By difficulty in its order; the tasks by how often they were played.
    assert text.index("2 1 1 4 0.000 0.000 0.000 0.000") < text.index("10 1 2 8 0.750 0.750 0.500 0.500")
    assert text.index("a[1] 10 2 2 8 0.750 0.750 0.500 0.500") < text.index("b 2 1 1 4 0.000")
    code, text = shown(capsys, str(tmp_path), "--top", "1")
    assert "most played tasks (1 of 2)" in text
    assert "b 2 1 1 4" not in text


def test_tasks_are_shown_by_label_where_they_have_any(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunDirectory.open(resolve({"env": "toy"}), tmp_path) as directory:
        # A run that was begun before tasks had labels.
        directory.write_tasks(1, [row("a", 0.5, True), row("b", 0.0, False, labels={"skill": "mail"})])
        directory.write_tasks(2, [row("c", 1.0, True, labels={"skill": "calendar"})])
    code, text = shown(capsys, str(tmp_path))
    assert code == 0
    assert "by skill" in text
    assert "calendar 1 1 4 1.000 1.000 1.000 1.000" in text
    assert "mail 1 1 4 0.000 0.000 0.000 0.000" in text
    assert "b mail 1 1 4" in text


def test_where_there_is_no_run_or_no_update_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shown(capsys, str(tmp_path)) == (2, f"error: there is no run in {tmp_path}: it has no run.yaml")
    RunDirectory.open(resolve({"env": "toy"}), tmp_path).close()
    code, text = shown(capsys, str(tmp_path))
    assert code == 2
    assert "has recorded no tasks: it has not finished an update yet" in text
