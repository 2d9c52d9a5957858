"""The held-out tasks that a model is measured on: drawn once, the same before and after."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from agentrl.errors import UsageError
from agentrl.seeds import derive
from agentrl.types import Task


@dataclass(frozen=True, slots=True)
class Panel:
    """Tasks of one split.

    Attributes:
        split: whose tasks they are.
        tasks: in the split's order.
        whole_scenarios: whether all tasks of each scenario are among them, and scenarios are measured.
    """

    split: str
    tasks: list[Task]
    whole_scenarios: bool = False


def draw_panel(
    tasks: Sequence[Task], count: int, seed: int, split: str, *, whole_scenarios: bool = False
) -> Panel:
    """Return up to `count` tasks of a split, drawn by `seed`, in the split's order.

    Args:
        tasks: of the split; may be lazy and huge, unless scenarios are to be whole.
        count: how many at most, but at least one scenario where scenarios are to be whole.
        seed: of the draw.
        split: name of the split.
        whole_scenarios: take all tasks of a scenario or none; a task without a scenario is one by itself.

    Raises:
        UsageError: the split is empty.
    """
    if not len(tasks):
        raise UsageError(f"the split {split!r} has no tasks; choose another or add tasks to it")
    if count >= len(tasks):
        return Panel(split, list(tasks), whole_scenarios)
    chance = Random(derive(seed, "panel", split))
    draw = _draw_scenarios if whole_scenarios else _draw_tasks
    return Panel(split, [tasks[index] for index in sorted(draw(tasks, count, chance))], whole_scenarios)


def scenario_of(task: Task) -> str:
    """Return the name of a task's scenario; a task without one is a scenario by itself."""
    return f"task {task.id}" if task.scenario is None else f"scenario {task.scenario}"


def _draw_tasks(tasks: Sequence[Task], count: int, chance: Random) -> list[int]:
    return chance.sample(range(len(tasks)), count)


def _draw_scenarios(tasks: Sequence[Task], count: int, chance: Random) -> list[int]:
    """Return the places of the tasks of scenarios that fit in, as chance has them."""
    scenarios: dict[str, list[int]] = {}
    for index, task in enumerate(tasks):
        scenarios.setdefault(scenario_of(task), []).append(index)
    chosen: list[int] = []
    for places in chance.sample(list(scenarios.values()), len(scenarios)):
        if not chosen or len(chosen) + len(places) <= count:
            chosen += places
    return chosen
