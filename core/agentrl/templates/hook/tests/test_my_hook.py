"""The hook plugin keeps the rules of hooks, and writes what it says."""

from pathlib import Path

from agentrl.testing import check_hook

from agentrl_my_hook import MyHook


def test_it_keeps_the_rules_of_hooks() -> None:
    """Take it through a run, from start to end."""
    check_hook(MyHook)


def test_chosen_metrics_are_written_line_by_line(tmp_path: Path) -> None:
    """Finish two updates, one of which lacks a metric."""
    config = MyHook.Config(metrics=("success", "speed"))
    hook = MyHook(config)
    hook.run_started(tmp_path)
    hook.step_finished(1, {"success": 0.5, "reward": 0.4})
    hook.step_finished(2, {"success": 0.75, "speed": 3.0})
    assert hook.path is not None
    assert hook.path.read_text().split() == ["step,success,speed", "1,0.5,", "2,0.75,3.0"]
