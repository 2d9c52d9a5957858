"""Held-out tasks: whole scenarios where they count, and what is said of them."""

import io
from collections.abc import Sequence

import pytest
from rich.console import Console

from agentrl import Group, Outcome, Task, Trajectory, UsageError
from agentrl.evaluation import summarize
from agentrl.panel import draw_panel
from agentrl.summary import summarize_run
from agentrl.tables import evaluation_table, summary_table

# Ten scenarios of three tasks, and two tasks without any.
TASKS = [Task(f"s{s}_{n}", "dev", scenario=f"s{s}") for s in range(10) for n in range(3)]
TASKS += [Task("alone", "dev"), Task("lonely", "dev")]


def group(task: Task, *successes: bool | None) -> Group:
    """Return a judged group; None stands for an episode that failed."""
    return Group(
        task,
        [
            Trajectory(task, stop="error", error="died")
            if success is None
            else Trajectory(task, outcome=Outcome(success))
            for success in successes
        ],
    )


def scenario(name: str, *tasks: Sequence[bool | None], difficulty: int | None = None) -> list[Group]:
    return [
        group(Task(f"{name}_{n}", scenario=name, difficulty=difficulty), *each)
        for n, each in enumerate(tasks)
    ]


def test_tasks_are_drawn_whatever_their_scenario_unless_scenarios_count() -> None:
    drawn = draw_panel(TASKS, 7, 0, "dev")
    assert len(drawn.tasks) == 7
    assert not drawn.whole_scenarios
    assert drawn.tasks == [task for task in TASKS if task in drawn.tasks], "the split's order"
    assert drawn.tasks == draw_panel(TASKS, 7, 0, "dev").tasks != draw_panel(TASKS, 7, 1, "dev").tasks
    assert draw_panel(TASKS, 99, 0, "dev").tasks == TASKS


@pytest.mark.parametrize("seed", range(5))
def test_scenarios_are_drawn_whole_and_as_many_as_fit(seed: int) -> None:
    drawn = draw_panel(TASKS, 11, seed, "dev", whole_scenarios=True)
    assert drawn.whole_scenarios
    assert 9 <= len(drawn.tasks) <= 11
    for task in drawn.tasks:
        if task.scenario:
            assert all(each in drawn.tasks for each in TASKS if each.scenario == task.scenario)
    assert drawn.tasks == [task for task in TASKS if task in drawn.tasks]


def test_there_is_always_a_scenario() -> None:
    drawn = draw_panel(TASKS[:30], 1, 0, "dev", whole_scenarios=True)
    assert len(drawn.tasks) == 3


def test_an_empty_split_is_an_error() -> None:
    with pytest.raises(UsageError, match="the split 'dev' has no tasks"):
        draw_panel([], 5, 0, "dev")


def test_a_scenario_succeeds_if_all_its_tasks_do() -> None:
    groups = [
        *scenario("all", [True], [True], [True]),
        *scenario("most", [True], [True], [False]),
        *scenario("none", [False], [False], [False]),
        *scenario("broken", [True], [True], [None]),
        group(Task("alone"), True),
    ]
    metrics = summarize(groups, "dev", whole_scenarios=True).metrics
    assert (metrics["scenario_success"].mean, metrics["scenario_success"].count) == (0.5, 4)
    assert metrics["success"].mean == pytest.approx(8 / 12)
    assert "scenario_success" not in summarize(groups, "dev").metrics


def test_with_repeats_it_is_the_chance_that_one_attempt_at_each_succeeds() -> None:
    groups = scenario("s", [True, True], [True, False], [True, None])
    assert summarize(groups, "dev", whole_scenarios=True).metrics["scenario_success"].mean == 0.5


def test_nothing_is_said_of_scenarios_of_which_none_is_complete() -> None:
    found = summarize(scenario("s", [True], [None]), "dev", whole_scenarios=True)
    assert "scenario_success" not in found.metrics
    assert found.failed == 1


def test_success_is_told_by_difficulty_where_there_are_several() -> None:
    easy, hard = (scenario("s", [True], [success], difficulty=d) for d, success in ((1, True), (3, False)))
    metrics = summarize([*easy, *hard], "dev").metrics
    assert [name for name in metrics if "success" in name] == [
        "success",
        "success/difficulty_1",
        "success/difficulty_3",
    ]
    assert (metrics["success/difficulty_1"].mean, metrics["success/difficulty_3"].mean) == (1.0, 0.5)
    assert "success/difficulty_1" not in summarize(easy, "dev").metrics


def test_tables_say_what_people_call_metrics() -> None:
    from agentrl.loop import Progress

    names = {"success": "TGC", "scenario_success": "SGC", "other": "OC"}
    found = summarize(scenario("s", [True], [True]), "dev", whole_scenarios=True)
    summary = summarize_run({0: found, 5: found}, Progress(step=5), names)
    assert summary["metric_names"] == {"success": "TGC", "scenario_success": "SGC"}
    for table in (evaluation_table(found, names), summary_table(summary)):
        console = Console(file=io.StringIO(), width=100)
        console.print(table)
        assert isinstance(console.file, io.StringIO)
        assert "TGC (success) " in console.file.getvalue()
        assert "SGC (scenario_success) " in console.file.getvalue()
        assert " turns " in console.file.getvalue()
