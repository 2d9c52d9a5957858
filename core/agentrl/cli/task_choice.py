"""Which task a user means: one named by its id, one at a place, or one that is drawn.

Splits may be endless, and their tasks costly to make. Ids mostly count, such as train-7, or mail-7 after
form-7: so the place of a task follows from the number in its id, and only where it does not are the tasks
looked through, those at the front.
"""

import re
from collections.abc import Sequence
from itertools import islice
from random import Random
from typing import TYPE_CHECKING

from agentrl.errors import UsageError

if TYPE_CHECKING:
    from agentrl.interfaces import Env
    from agentrl.types import Task

LOOKED_THROUGH = 10_000


def choose_task(env: "Env", split: str | None, wanted: str | None, seed: int) -> "Task":
    """Return the task with the id or at the place that is `wanted`, or one that is drawn.

    Raises:
        UsageError: there is none.
    """
    split = split or str(env.suggests.get("train_split", "train"))
    tasks = env.tasks(split)
    if not len(tasks):
        raise UsageError(f"the split {split!r} has no tasks; choose another with --split")
    if wanted is None:
        return tasks[Random(seed).randrange(len(tasks))]
    # Where ids are numbers, a number is an id first.
    if wanted.isdecimal() and int(wanted) < len(tasks) and not tasks[0].id.isdecimal():
        return tasks[int(wanted)]
    if counted := _counted(tasks, wanted):
        return counted
    return _looked_up(tasks, wanted, split)


def _counted(tasks: Sequence["Task"], wanted: str) -> "Task | None":
    """Return the task whose place follows from the last number of its id, None if that leads nowhere."""
    first, number = _last_number(tasks[0].id), _last_number(wanted)
    # So many tasks have one number before the next comes.
    later = (place for place, task in enumerate(_front(tasks)) if _last_number(task.id) != first)
    many = next(later, None)
    if first is None or number is None or many is None:
        return None
    begin = (number - first) * many
    places = range(max(0, begin), min(begin + many, len(tasks)))
    return next((tasks[place] for place in places if tasks[place].id == wanted), None)


def _last_number(name: str) -> int | None:
    found = re.findall(r"\d+", name)
    return int(found[-1]) if found else None


def _looked_up(tasks: Sequence["Task"], wanted: str, split: str) -> "Task":
    ids: list[str] = []
    for task in _front(tasks):
        if task.id == wanted:
            return task
        ids.append(task.id)
    if wanted.isdecimal() and int(wanted) < len(tasks):
        return tasks[int(wanted)]
    raise UsageError(_no_task(wanted, split, ids, len(tasks)))


def _front(tasks: Sequence["Task"]) -> "islice[Task]":
    return islice(tasks, LOOKED_THROUGH)


def _no_task(wanted: str, split: str, ids: list[str], count: int) -> str:
    from agentrl.options import nearest

    close = nearest(wanted, ids)
    found = f"did you mean {close!r}?" if close else f"there is {', '.join(map(repr, ids[:3]))}"
    more = f" (or name it by its place, from 0 to {count - 1}; --split chooses another split)"
    where = f"the split {split!r} has" if len(ids) == count else f"the front of the split {split!r} has"
    return f"{where} no task {wanted!r}; {found}{more}"
