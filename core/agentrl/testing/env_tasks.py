"""The rules of an env's tasks: what they hold, and how its splits are kept apart."""

import itertools
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from agentrl.errors import UsageError
from agentrl.hosting.codec import task_to_json
from agentrl.testing.env_player import EnvUnderTest, shorten
from agentrl.testing.rules import RuleBroken
from agentrl.types import Task

# Lazy splits may be endless; this many tasks of each are compared.
COMPARED = 1000


async def has_tasks_that_json_can_carry(subject: EnvUnderTest) -> None:
    """Tasks are JSON-safe, belong to their split, have ids of their own, and come in a fixed order."""
    async with subject.env() as env, subject.env() as other:
        for split in subject.splits:
            tasks = subject.some(env, split, COMPARED)
            for task in tasks:
                _check_task(task, split)
            _check_ids([task.id for task in tasks], split)
            if not tasks == subject.some(env, split, COMPARED) == subject.some(other, split, COMPARED):
                raise RuleBroken(
                    "has tasks in a fixed order",
                    f"split {split!r} was different when asked again",
                    "derive tasks from a fixed seed, never from sets, clocks or the global random generator",
                )


def _check_task(task: Any, split: str) -> None:
    if not isinstance(task, Task):
        found = f"tasks({split!r}) holds a {type(task).__name__}"
        raise RuleBroken("has tasks", found, "return agentrl.Task values")
    if task.split != split:
        found = f"task {task.id!r} of split {split!r} says split={task.split!r}"
        raise RuleBroken("names the split", found, "pass split to Task")
    if not all(isinstance(text, str) for pair in task.labels.items() for text in pair):
        found = f"the labels of task {task.id!r} are {shorten(str(task.labels))}"
        raise RuleBroken("labels its tasks in words", found, "let labels map texts to texts")
    if found := _changed_by_json(task):
        remedy = "use only text, numbers, lists, and mappings with text as keys"
        raise RuleBroken("has JSON-safe tasks", found, remedy)


def _changed_by_json(task: Task) -> str:
    try:
        json_task = task_to_json(task)
        same = json.loads(json.dumps(json_task, allow_nan=False)) == json_task
    except (TypeError, ValueError) as error:
        return f"the data of task {task.id!r} cannot be written as JSON ({error})"
    return "" if same else f"the data of task {task.id!r} changes on its way through JSON"


def _check_ids(ids: list[str], split: str) -> None:
    if len(set(ids)) < len(ids):
        double = next(name for name in ids if ids.count(name) > 1)
        raise RuleBroken(
            "names its tasks", f"two tasks of {split!r} are called {double!r}", "make ids unique"
        )


async def keeps_its_splits_apart(subject: EnvUnderTest) -> None:
    """No task is in two splits, under whatever id."""
    async with subject.env() as env:
        for one, other in itertools.combinations(subject.splits, 2):
            first = {key: task for task in subject.some(env, one, COMPARED) for key in _identities(task)}
            for task in subject.some(env, other, COMPARED):
                twin = next((first[key] for key in _identities(task) if key in first), None)
                if twin is not None:
                    raise RuleBroken(
                        "keeps its splits apart",
                        f"task {twin.id!r} of {one!r} is task {task.id!r} of {other!r}",
                        "draw each split from entities of its own, else what is measured is memory",
                    )


def _identities(task: Task) -> Iterator[str]:
    yield f"id {task.id}"
    if task.data:
        with suppress(TypeError, ValueError):  # a rule of its own says so
            yield "data " + json.dumps(dict(task.data), sort_keys=True)


async def refuses_unknown_splits(subject: EnvUnderTest) -> None:
    """A split that does not exist is a usage error, not an empty one."""
    async with subject.env() as env:
        try:
            env.tasks("no-such-split")
        except UsageError:
            return
        except Exception as error:
            found = f"tasks('no-such-split') raised {type(error).__name__}: {error}"
        else:
            found = "tasks('no-such-split') returned tasks"
    raise RuleBroken(
        "refuses unknown splits", found, "raise agentrl.UsageError and name the splits there are"
    )
