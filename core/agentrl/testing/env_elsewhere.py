"""The rule that an env is the same in every process, which worker processes and resumed runs rely on.

What hides a difference within one process is mostly the order of sets, and `hash` of a text: Python draws
both anew for every process.
"""

import asyncio
import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Awaitable
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import TypeAlias

from agentrl.testing.env_player import EnvUnderTest, shorten
from agentrl.testing.env_tasks import COMPARED
from agentrl.testing.rules import RuleBroken, RuleSkipped

# What there is to see, and how it looks.
Shown: TypeAlias = list[tuple[str, str]]
# Seconds that the other process may take, besides those of an operation.
PATIENCE = 120
# The exit code of a process that has not found the env's class.
NOT_FOUND = 3
_OTHER = f"""
import json, pickle, sys
from pathlib import Path
path, folder = json.loads(sys.argv[1])
sys.path[:] = path
try:
    subject = pickle.loads((Path(folder) / "subject").read_bytes())
except (ImportError, AttributeError):
    sys.exit({NOT_FOUND})
from agentrl.testing.env_elsewhere import what_it_shows
(Path(folder) / "shown").write_bytes(pickle.dumps(what_it_shows(subject)))
"""


async def repeats_itself_elsewhere(subject: EnvUnderTest) -> None:
    """Another process finds the same tasks, and the same seed and actions make the same episode there."""
    try:
        pickled = pickle.dumps(replace(subject, hosts=[]))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise RuleSkipped("only a class that can be imported is looked at") from error
    here, there = await _both(_look(subject), asyncio.to_thread(_ask, pickled, subject.seconds))
    for (what, one), (_, other) in zip_longest(here, there, fillvalue=("one more task", "")):
        if one != other:
            raise RuleBroken(
                "repeats itself elsewhere",
                f"{what} was another one in another process ({_difference(one, other)})",
                "sort what comes from sets, and derive nothing from hash(), ids, clocks or the process",
            )


async def _both(*looks: Awaitable[Shown]) -> list[Shown]:
    """Return what two looks at once have shown; if both fail, the first one's failure counts."""
    found = await asyncio.gather(*looks, return_exceptions=True)
    for each in found:
        if isinstance(each, BaseException):
            raise each
    return [each for each in found if not isinstance(each, BaseException)]


def _difference(one: str, other: str) -> str:
    """Return where two texts part."""
    pairs = enumerate(zip_longest(one, other))
    before = max(0, next(place for place, (mine, theirs) in pairs if mine != theirs) - 20)
    return f"{shorten(one[before:])} became {shorten(other[before:])}"


def _ask(pickled: bytes, seconds: float) -> Shown:
    """Return what a pickled env shows in a process that orders sets in another way."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "subject").write_bytes(pickled)
        _run(folder, seconds)
        shown: Shown = pickle.loads((Path(folder) / "shown").read_bytes())
    return shown


def _run(folder: str, seconds: float) -> None:
    other_order = "1" if os.environ.get("PYTHONHASHSEED") == "0" else "0"
    done = subprocess.run(
        [sys.executable, "-c", _OTHER, json.dumps([sys.path, folder])],
        env={**os.environ, "PYTHONHASHSEED": other_order},
        capture_output=True,
        text=True,
        timeout=PATIENCE + seconds,
        check=False,
    )
    if done.returncode == NOT_FOUND:
        raise RuleSkipped("only a class that another process can import is looked at")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        remedy = "let the env depend on nothing but its options: no global that something else sets"
        raise RuleBroken("repeats itself elsewhere", f"in another process it fails ({last})", remedy)


def what_it_shows(subject: EnvUnderTest) -> Shown:
    """Return the env's tasks, and an episode of each split, each with what it is."""

    async def look() -> Shown:
        try:
            return await _look(subject)
        finally:
            await subject.close()

    return asyncio.run(look())


async def _look(subject: EnvUnderTest) -> Shown:
    shown: Shown = []
    async with subject.env() as env:
        for split in subject.splits:
            tasks = subject.some(env, split, COMPARED)
            shown += [(f"task {task.id!r} of {split!r}", repr(task)) for task in tasks]
            episode = await subject.play_alone(tasks[0], await subject.script(env, tasks[0]))
            shown.append((f"the episode of task {tasks[0].id!r}", repr(episode)))
    return shown
