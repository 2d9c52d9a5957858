import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import agentrl_tensorboard
from agentrl.hooks import Hooks
from agentrl_tensorboard import TensorBoard

pytest.importorskip("tensorboard")


def started(folder: Path, **options: Any) -> Hooks:
    hooks = Hooks(plugins=[TensorBoard(TensorBoard.Config(**options))], installed=False)
    hooks.run_started(None, folder)  # type: ignore[arg-type]
    return hooks


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {
        tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def test_every_finite_metric_becomes_a_curve(tmp_path: Path) -> None:
    hooks = started(tmp_path)
    hooks.evaluated(0, {"eval/reward": 0.25})
    hooks.step_finished(1, {"reward": 0.5, "loss": float("nan")})
    hooks.step_finished(2, {"reward": 0.75})
    hooks.run_finished(None)
    assert curves(tmp_path) == {"eval/reward": [(0, 0.25)], "reward": [(1, 0.5), (2, 0.75)]}


def test_a_run_that_is_killed_and_resumed_has_every_step_once(tmp_path: Path) -> None:
    hooks = started(tmp_path)
    for step in (1, 2, 3):
        hooks.step_finished(step, {"reward": float(step)})
    hooks = started(tmp_path)  # the first is never finished
    for step in (3, 4):
        hooks.step_finished(step, {"reward": -float(step)})
    hooks.run_finished(None)
    assert curves(tmp_path) == {"reward": [(1, 1.0), (2, 2.0), (3, -3.0), (4, -4.0)]}


def test_it_can_be_turned_off(tmp_path: Path) -> None:
    hooks = started(tmp_path, enabled=False)
    hooks.step_finished(1, {"reward": 1.0})
    hooks.run_finished(None)
    assert list(tmp_path.iterdir()) == []


def test_without_tensorboard_the_run_goes_on_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(agentrl_tensorboard, "find_spec", lambda name: None)
    with caplog.at_level(logging.INFO):
        hooks = started(tmp_path)
        hooks.step_finished(1, {"reward": 1.0})
        hooks.run_finished(None)
    assert [record.message for record in caplog.records] == [
        "no curves for TensorBoard; pip install 'agentrl-platform[tensorboard]' adds them"
    ]


def test_writing_imports_no_torch(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from agentrl_tensorboard import TensorBoard
plugin = TensorBoard()
plugin.run_started(None, Path(sys.argv[1]))
plugin.step_finished(1, {"reward": 1.0})
print("torch" in sys.modules, "tensorflow" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False False\n"
