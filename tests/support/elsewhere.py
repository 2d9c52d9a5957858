"""Envs in another virtual environment that do what an action says, and how tests play in them.

The fixture `elsewhere` pretends that their environments are set up.
"""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from pathlib import Path
from typing import ClassVar, TypeVar

import pytest

from agentrl import Action, Environment, Observation, PluginConfig, RemoteEnv, Task
from agentrl.hosting.elsewhere import RemotePool, site_of
from processes import descendants, wait_for

T = TypeVar("T")

WORLD = """
import os, random, subprocess, sys, time
from pathlib import Path

LOADED = []


def preload(config):
    LOADED.append(os.getpid())
    if config["preload"]:
        exec(config["preload"])


def reset(task, seed, config):
    global folder, steps
    folder, steps = Path(config["folder"]), 0
    if task["data"].get("bad"):
        raise ValueError("no such world")
    return {"text": "hello %s %d" % (task["data"]["name"], seed), "state_key": "start"}


def step(action):
    global steps
    steps += 1
    return globals()["do_" + action["text"]]()


def judge():
    return {"success": True, "answer": str(steps), "passed": ["a"], "metrics": {"length": 2}, "tags": ["odd"]}


def close():
    (folder / ("closed-%d" % os.getpid())).touch()


def do_claim():
    return {"text": "noted", "record": {"claimed": steps}}


def do_draw():
    time.sleep(0.03)
    return {"text": str(random.random()), "done": steps == 3}


def do_fine():
    return {"text": "fine", "done": True, "action_key": "be fine"}


def do_who():
    return "%s %s %s" % (os.getpid(), LOADED[0], os.getppid())


def do_python():
    return repr([os.environ.get("PYTHONPATH"), "agentrl" in sys.modules, random.random()])


def do_print():
    print("printed")
    os.write(1, b"below Python")
    subprocess.run(["echo", "by a child"], check=True)
    return repr(sys.stdin.read())


def do_long():
    return "\\U0001f40d\\ud800" * 200000


def do_raise():
    raise KeyError("the missing key")


def do_none():
    return None


def do_number():
    return {"text": 7}


def do_unsafe():
    return {"text": "x", "state_key": {1, 2}}


def do_exit():
    print("something is wrong, so I leave")
    sys.stdout.flush()
    os._exit(3)


def do_system_exit():
    sys.exit(5)


def do_crash():
    os.abort()


def do_garbage():
    for file in range(3, 30):
        try:
            os.write(file, b"\\xff" * 64)
        except OSError:
            pass
    time.sleep(600)


def do_fork():
    if os.fork() == 0:
        return "I am the wrong one"
    time.sleep(0.3)
    return "I am the right one"


def do_eat():
    return str(len(bytearray(1 << 29)))


def do_block():
    (folder / "blocking").touch()
    time.sleep(600)


def do_family():
    child = subprocess.Popen(["sleep", "600"])
    stranger = subprocess.Popen(["sleep", "600"], start_new_session=True)
    daemon = subprocess.Popen(
        [sys.executable, "-c", "import os, time; os.fork() and os._exit(0); os.setsid(); time.sleep(600)"]
    )
    daemon.wait()
    (folder / "kin").write_text("%d %d" % (child.pid, stranger.pid))
    (folder / "kin").rename(folder / "family")
    time.sleep(600)
"""
JUDGE = """
import os
TRUTH = []


def preload(config):
    TRUTH.append(os.getpid())


def judge(task, seed, records, config):
    return {"success": os.getppid() == TRUTH[0], "answer": repr([task["id"], seed, records, sorted(config)])}
"""
TASK = Task("greet", data={"name": "world"})


class Elsewhere(RemoteEnv):
    """Does what the action says, elsewhere."""

    class Config(PluginConfig):
        """Options."""

        folder: str = ""
        preload: str = ""

    environment: ClassVar[Environment] = Environment(worker="world.py")

    def tasks(self, split: str) -> Sequence[Task]:
        return [TASK]


class Small(Elsewhere):
    """Has little memory."""

    environment: ClassVar[Environment] = Environment(worker="world.py", memory_mb=512)


class Judged(Elsewhere):
    """Is judged by a process of its own."""

    environment: ClassVar[Environment] = Environment(worker="world.py", judge="justice.py")


class Short(Elsewhere):
    """Has little time for an episode."""

    environment: ClassVar[Environment] = Environment(worker="world.py", episode_seconds=0.5)


@cache
def pythons() -> list[str]:
    """Return the oldest and the newest Python there is here, and this one."""
    found = [path for minor in (9, 13) if (path := _python(f"python3.{minor}"))]
    return list(dict.fromkeys([*found, sys.executable]))


def _python(name: str) -> str | None:
    folders = sorted(Path("~/.pyenv/versions").expanduser().glob(f"{name.removeprefix('python')}*"))
    path = str(folders[-1] / "bin" / "python") if folders else shutil.which(name)
    return path if path and subprocess.run([path, "--version"], check=False).returncode == 0 else None


def pretend(python: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the environments of the envs above set up in a folder, with this Python."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    (folder / "world.py").write_text(WORLD)
    (folder / "justice.py").write_text(JUDGE)
    monkeypatch.setattr("agentrl.hosting.elsewhere.site._folder_of", lambda env: folder)
    site = site_of(Elsewhere)
    for needed in (site.python.parent, site.files):
        needed.mkdir(parents=True)
    site.python.symlink_to(python)
    (site.folder / "done.json").write_text(json.dumps(site.titles))


def play(
    body: Callable[[RemotePool], Awaitable[T]],
    env: type[Elsewhere] = Elsewhere,
    size: int = 1,
    **options: str,
) -> T:
    """Play in a pool and see to it that nothing is left behind."""

    async def run() -> T:
        pool = RemotePool(env(env.Config(**options)), size)
        try:
            return await body(pool)
        finally:
            await pool.close()

    before = descendants()
    try:
        return asyncio.run(asyncio.wait_for(run(), 120))
    finally:
        wait_for(lambda: descendants() <= before, 5)


async def step(pool: RemotePool, text: str, name: str = "world") -> Observation:
    """Return what an action leads to in an episode of its own."""
    async with pool.lease() as env:
        await env.reset(Task("greet", data={"name": name}), 1)
        return await env.step(Action(text))


def step_once(text: str, env: type[Elsewhere] = Elsewhere, **options: str) -> Observation:
    """Return what an action leads to in a pool of its own."""
    return play(lambda pool: step(pool, text), env, **options)
