"""Success by kind of task, and under which conditions it is lost."""

import io
import math
from collections.abc import Mapping
from typing import Any

import pytest
from rich.console import Console

from agentrl import Group, Outcome, Task, Trajectory
from agentrl.breakdown import TagEffect
from agentrl.evaluation import summarize
from agentrl.statistics import Estimate
from agentrl.tables import tags_table


def group(labels: Mapping[str, str], *episodes: tuple[bool, str] | None) -> Group:
    """Return a judged group; each episode has a verdict and tags, None stands for one that failed."""
    task = Task("t", labels=labels)
    return Group(
        task,
        [
            Trajectory(task, stop="error", error="died")
            if each is None
            else Trajectory(task, outcome=Outcome(each[0], tags=tuple(each[1].split())))
            for each in episodes
        ],
    )


MAIL, CALENDAR = {"skill": "mail", "profile": "calm"}, {"skill": "calendar", "profile": "calm"}
GROUPS = [
    group(MAIL, (True, ""), (True, "slow"), None),
    group(MAIL, (True, ""), (False, "slow zoomed"), (False, "slow")),
    group(CALENDAR, (True, "zoomed"), (True, "zoomed"), (False, "zoomed")),
    group(CALENDAR, None, None, None),
]


def test_success_is_told_by_label_where_one_has_several_values() -> None:
    metrics = summarize(GROUPS, "dev").metrics
    by_label = {name: value.mean for name, value in metrics.items() if name.startswith("success/")}
    assert by_label == {
        "success/skill=calendar": pytest.approx(2 / 3),
        "success/skill=mail": pytest.approx((1 + 1 / 3) / 2),
    }
    assert metrics["success/skill=mail"].count == 2
    assert list(metrics)[:4] == ["reward", "success", "success/skill=calendar", "success/skill=mail"]


def test_with_repeats_the_reliability_of_each_label_is_told_for_all_attempts_together() -> None:
    metrics = summarize(GROUPS, "dev").metrics
    assert [name for name in metrics if name.startswith("pass@")] == [
        "pass@3/skill=calendar",
        "pass@3/skill=mail",
        "pass@1",
        "pass@2",
        "pass@3",
    ]
    # Of one task only two attempts did not fail, of another none: three are known of the others alone.
    assert [metrics[f"pass@{k}"].count for k in (1, 2, 3)] == [3, 3, 2]
    assert metrics["pass^3/skill=calendar"].mean == 0
    assert metrics["pass@3/skill=mail"].mean == 1
    assert metrics["pass^2"].mean == pytest.approx((1 / 3 + 1 + 0) / 3)
    assert metrics["pass@2"].mean == pytest.approx((1 + 1 + 2 / 3) / 3)
    once = [group(MAIL, (True, "")), group(CALENDAR, (True, ""))]
    assert not [name for name in summarize(once, "dev").metrics if name.startswith("pass")]


def test_where_tasks_differ_in_two_labels_success_is_told_by_both_together_too() -> None:
    stormy = group({**MAIL, "profile": "hostile"}, (False, ""))
    metrics = summarize([*GROUPS, stormy, group({"skill": "mail"}, (False, ""))], "dev").metrics
    assert [name for name in metrics if name.startswith("success/skill=mail")] == [
        "success/skill=mail",
        "success/skill=mail,profile=calm",
        "success/skill=mail,profile=hostile",
    ]
    assert metrics["success/skill=mail,profile=calm"].mean == pytest.approx((1 + 1 / 3) / 2)
    assert metrics["success/skill=mail,profile=hostile"].mean == 0
    assert "success/skill=calendar,profile=hostile" not in metrics


def test_tasks_without_a_label_are_left_out_of_it() -> None:
    metrics = summarize([*GROUPS, group({}, (False, ""))], "dev").metrics
    assert metrics["success/skill=mail"].count == 2


def test_each_condition_is_told_apart_by_the_first_label_the_most_harmful_first() -> None:
    effects = summarize(GROUPS, "dev").tags
    found = [(each.tasks, each.tag, each.episodes, each.others) for each in effects]
    assert found == [
        ("skill=calendar", "zoomed", 3, 0),
        ("skill=mail", "zoomed", 1, 4),
        ("skill=mail", "slow", 3, 2),
    ]
    always, zoomed, slow = effects
    assert (always.present.mean, always.absent) == (pytest.approx(2 / 3), None)
    assert (zoomed.present.mean, zoomed.absent and zoomed.absent.mean) == (0.0, 0.75)
    assert (slow.present.mean, slow.absent and slow.absent.mean) == (0.5, 1.0)
    assert slow.present.low < 0.5 < slow.present.high


def test_a_condition_is_not_blamed_for_what_goes_with_it() -> None:
    """Half of the hostile episodes succeed and nine tenths of the calm ones, zoomed or not."""
    calm, hostile = ({**MAIL, "profile": name} for name in ("calm", "hostile"))

    def task(labels: Mapping[str, str], successes: int, of: int, tags: str) -> Group:
        return group(labels, *((index < successes, tags) for index in range(of)))

    groups = [
        *(task(calm, 9, 10, tags) for tags in ("", "", "", "zoomed")),
        *(task(hostile, 5, 10, tags) for tags in ("", "zoomed", "zoomed", "zoomed")),
        task({**MAIL, "profile": "still"}, 10, 10, ""),
    ]
    (zoomed,) = summarize(groups, "dev").tags
    assert zoomed.absent is not None
    assert (zoomed.episodes, zoomed.others) == (40, 40)
    assert zoomed.present.mean == pytest.approx(zoomed.absent.mean)
    assert zoomed.present.mean == pytest.approx((0.9 + 3 * 0.5) / 4)


def test_without_labels_all_tasks_are_taken_together_and_without_tags_there_is_nothing_to_tell() -> None:
    (effect,) = summarize([group({}, (True, ""), (False, "slow"))], "dev").tags
    assert (effect.tasks, effect.tag, effect.present.mean) == ("all", "slow", 0.0)
    assert summarize([group({}, (True, ""))], "dev").tags == []


def test_the_table_names_the_condition_and_what_it_did() -> None:
    evaluation = summarize(GROUPS, "dev")
    shown = rendered(tags_table(evaluation))
    assert "skill=calendar zoomed 0.667 [0.000, 1.000] - 3 and 0" in shown
    assert "skill=mail zoomed 0.000" in shown
    odd = TagEffect("[b]", "[red]", Estimate(0.5, -math.inf, math.inf, 1), None, 1, 0)
    evaluation.tags[:] = [odd]
    assert "[b] [red] 0.500 [-inf, inf]" in rendered(tags_table(evaluation))


def rendered(table: Any) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return " ".join(console.file.getvalue().split())
