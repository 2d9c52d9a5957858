"""What AppWorld is spared: worlds say the same with it as without, and share no shell."""

import gc
import json
import os
import subprocess
import sys
import weakref
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from agentrl_appworld.inside import hastening

PYTHON = os.environ.get("AGENTRL_APPWORLD_PYTHON", "")
APPWORLD = pytest.mark.skipif(
    not PYTHON, reason="AGENTRL_APPWORLD_PYTHON names no python that has appworld (see docs/appworld.md)"
)
# Plays and judges some tasks as an episode does: well, with code that fails, and looking at clock and shell.
PLAY = """
import json, os, sys
inside, play_root, truth_root, spared = sys.argv[1:]
sys.path.insert(0, inside)
import hastening
if spared == "plain":
    hastening.hasten = hastening.prepare_shell = lambda **options: None
import judge, worker

CONFIG = {"play_root": play_root, "truth_root": truth_root, "characters": 12000, "seconds": 30, "calls": 1000,
          "errors": 3}
LOOK = ["print(1 / 0)", "import time, datetime\\nprint(time.time(), datetime.datetime.now(), In, Out, _dh)"]

def forked(work, *arguments):
    ours, theirs = os.pipe()
    if os.fork() == 0:
        with os.fdopen(theirs, "w") as file:
            json.dump(work(*arguments), file)
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as file:
        return json.load(file)

def play(task):
    with open(f"{truth_root}/data/tasks/{task}/ground_truth/turns.json") as file:
        first, *rest = json.load(file)
    said = [worker.reset({"id": task}, 5, CONFIG)]
    for code in [first, *LOOK, *rest]:
        said.append(worker.step({"text": f"```python\\n{code}\\n```"}))
    worker.close()
    # A second world in the same process has a shell of its own.
    worker.reset({"id": task}, 5, CONFIG)
    said.append(worker.step({"text": "```python\\nprint(time.time(), datetime, sorted(dir()))\\n```"}))
    worker.close()
    return said

def judge_all(played):
    judge.preload(CONFIG)
    records = {task: [each["record"] for each in said[1:-1]] for task, said in played.items()}
    return [[judge.judge({"id": task}, 5, mine, CONFIG) for mine in (records[task], [])] for task in played]

with open(f"{truth_root}/data/datasets/dev.txt") as file:
    tasks = file.read().split()[::12]
worker.preload(CONFIG)
played = {task: forked(play, task) for task in tasks}
print(json.dumps([played, forked(judge_all, played)]))
"""


def told(files: Path, spared: str) -> Any:
    """Return all that some episodes were told, and how they were judged."""
    roots = str(files / "small_play"), str(files / "small")
    done = subprocess.run(
        [PYTHON, "-c", PLAY, str(Path(hastening.__file__).parent), *roots, spared],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@APPWORLD
@pytest.mark.timeout(600)
def test_worlds_say_the_same_and_are_judged_alike_whether_work_is_spared_or_not(appworld_files: Path) -> None:
    played, judged = told(appworld_files, "spared")
    assert len(played) >= 2
    assert all(solved["success"] and not idle["success"] for solved, idle in judged)
    assert all("NameError" in said[-1]["text"] for said in played.values())
    assert [played, judged] == told(appworld_files, "plain")


@pytest.mark.parametrize(("storage", "times"), [("memory", 1), ("disk", 2)])
def test_the_details_of_a_database_are_kept_while_it_is_there_if_it_is_in_memory(
    storage: str, times: int
) -> None:
    asked = []

    def find(engine: object) -> tuple[str, ...]:
        asked.append(id(engine))
        return "url", "path", "home", storage, "connection"

    details, engine = hastening._kept_details(find), ModuleType("engine")
    assert details(engine) == details(engine)
    assert len(asked) == times
    gone = weakref.ref(engine)
    del engine
    gc.collect()
    assert gone() is None


def test_a_module_has_changed_when_it_has_got_or_lost_a_name() -> None:
    hashed = hastening._hash_of_modules(lambda module: "looked at")
    module = ModuleType("clock")
    before = hashed(module)
    assert hashed(module) == before != hashed(ModuleType("clock"))
    module.time = sys.getrefcount  # type: ignore[attr-defined]
    assert hashed(module) != before
    assert hashed(SimpleNamespace()) == "looked at"
