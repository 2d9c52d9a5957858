"""Envs in worker processes: real processes, real signals."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from agentrl import Action, AgentRLError, Observation, Outcome, PluginError, Task, UsageError
from agentrl.hosting import EnvRaised, Nonsense, WorkerDied, WorkerEnv, WorkerPool
from processes import is_running, wait_for

T = TypeVar("T")

OBEDIENT = '''
import asyncio, ctypes, os, subprocess, sys, time
from pathlib import Path
from agentrl import Action, Env, Observation, Outcome, PluginConfig, Task

class Obedient(Env):
    """Does what the action says."""

    class Config(PluginConfig):
        greeting: str = "hello"
        folder: str = ""

    def tasks(self, split):
        return []

    async def reset(self, task, seed):
        self.task, self.steps = task, 0
        return Observation(f"{self.config.greeting} {task.data['name']} {seed}", state_key="start")

    async def step(self, action):
        self.steps += 1
        answer = getattr(self, "do_" + action.text)()
        if asyncio.iscoroutine(answer):
            answer = await answer
        return answer

    async def judge(self):
        tags = tuple(self.task.labels)
        return Outcome(True, str(self.steps), ("a", "b"), ("c",), (), {"length": 2}, tags)

    async def close(self):
        if self.config.folder:
            Path(self.config.folder, "closed").touch()

    def do_variables(self):
        names = ("OMP_NUM_THREADS", "PYTHONPATH")
        return Observation(repr([os.environ.get(name) for name in names]))

    def do_fine(self):
        return Observation("fine", done=True, action_key="be fine")

    def do_long(self):
        return Observation("\\U0001f40d\\ud800" * 200_000)

    def do_print(self):
        print("printed")
        os.write(1, b"written below Python\\n")
        subprocess.run(["echo", "by a child"], check=True)
        return Observation(repr(sys.stdin.read()))

    def do_raise(self):
        raise KeyError("the missing key")

    def do_exit(self):
        print("something is wrong, so I leave")
        sys.stdout.flush()
        os._exit(3)

    def do_system_exit(self):
        sys.exit("no more")

    def do_crash(self):
        ctypes.string_at(0)

    def do_block(self):
        self.mark("blocking")
        time.sleep(600)

    async def do_hang(self):
        self.mark("hanging")
        await asyncio.sleep(600)

    async def do_hang_with_child(self):
        child = subprocess.Popen(["sleep", "600"])
        Path(self.config.folder, "child").write_text(str(child.pid))
        await self.do_hang()

    def do_fork(self):
        if os.fork() == 0:
            time.sleep(600)
        os._exit(4)

    def do_none(self):
        return None

    def do_wrong_text(self):
        return Observation(text=7)

    def do_wrong_done(self):
        return Observation("x", done="yes")

    def mark(self, name):
        Path(self.config.folder, name).write_text(str(os.getpid()))


class Picky(Obedient):
    def __init__(self, config=None):
        raise ValueError("I do not like this machine")


class Slow(Obedient):
    def __init__(self, config=None):
        super().__init__(config)
        self.mark("making")
        time.sleep(600)


class BadJudge(Obedient):
    async def judge(self):
        return Outcome(True, metrics={"loss": float("nan")})


class StuckAtTheEnd(Obedient):
    async def close(self):
        await asyncio.sleep(600)
'''

TASK = Task("greet", data={"name": "world"}, labels={"mood": "good"})


@pytest.fixture(autouse=True)
def obedient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "obedient.py").write_text(OBEDIENT)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def in_worker(
    body: Callable[[WorkerEnv], Awaitable[T]], name: str = "obedient:Obedient", **options: Any
) -> T:
    async def run() -> T:
        env = WorkerEnv(name, options)
        await env.start(60)
        try:
            return await body(env)
        finally:
            await env.close()
            assert not is_running(env.pid)

    return asyncio.run(run())


async def step(env: WorkerEnv, text: str) -> Observation:
    await env.reset(TASK, 1)
    return await env.step(Action(text))


def step_in_worker(text: str, **options: Any) -> Observation:
    return in_worker(lambda env: step(env, text), **options)


def test_an_episode_in_a_worker_is_the_episode_that_it_would_be_here() -> None:
    async def play(env: WorkerEnv) -> tuple[Observation, Observation, Outcome]:
        return await env.reset(TASK, 5), await env.step(Action("fine")), await env.judge()

    first, last, outcome = in_worker(play, greeting="good day")
    assert first == Observation("good day world 5", state_key="start")
    assert last == Observation("fine", done=True, action_key="be fine")
    assert outcome == Outcome(True, "1", ("a", "b"), ("c",), (), {"length": 2.0}, ("mood",))


def test_a_worker_computes_on_one_thread_and_keeps_our_python_path_to_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", "as/the/user/set/it")
    assert step_in_worker("variables").text == "['1', 'as/the/user/set/it']"


def test_long_and_odd_texts_arrive_whole() -> None:
    assert step_in_worker("long").text == "\U0001f40d\ud800" * 200_000


def test_an_env_that_prints_and_reads_does_not_disturb_the_protocol() -> None:
    assert step_in_worker("print").text == "''"


def test_an_exception_is_told_with_its_place_and_the_worker_plays_on() -> None:
    async def play(env: WorkerEnv) -> Observation:
        with pytest.raises(
            EnvRaised, match=r"KeyError: 'the missing key' \(obedient.py line \d+, in do_raise\)"
        ):
            await step(env, "raise")
        return await step(env, "fine")

    assert in_worker(play).text == "fine"


@pytest.mark.parametrize(
    ("action", "cause"),
    [
        ("none", "step of env 'obedient:Obedient' returned None, not an Observation"),
        ("wrong_text", r"returned a int \(7\) as Observation.text, which must be a str"),
        ("wrong_done", r"returned a str \('yes'\) as Observation.done, which must be a bool"),
    ],
)
def test_nonsense_is_told_by_env_operation_and_value(action: str, cause: str) -> None:
    with pytest.raises(Nonsense, match=cause):
        step_in_worker(action)


def test_a_metric_that_is_no_number_is_nonsense() -> None:
    async def judge(env: WorkerEnv) -> None:
        await env.reset(TASK, 1)
        await env.judge()

    with pytest.raises(Nonsense, match=r"judge of env 'obedient:BadJudge' .*Outcome.metrics\['loss'\]"):
        in_worker(judge, "obedient:BadJudge")


@pytest.mark.parametrize(
    ("action", "cause"),
    [
        (
            "exit",
            "(?s)operation step: its worker process ended with exit code 3.*something is wrong, so I leave",
        ),
        ("system_exit", "(?s)ended with exit code 1.*no more"),
        ("crash", "(?s)was killed by SIGSEGV.*do_crash"),
        ("fork", "ended with exit code 4"),
    ],
)
def test_a_worker_that_dies_says_how_and_its_last_words(action: str, cause: str) -> None:
    async def play(env: WorkerEnv) -> None:
        with pytest.raises(WorkerDied, match=cause):
            await step(env, action)
        assert not env.alive
        with pytest.raises(WorkerDied, match="is gone"):
            await env.judge()

    in_worker(play)


def test_a_worker_that_is_killed_from_outside_may_have_run_out_of_memory(obedient: Path) -> None:
    async def play(env: WorkerEnv) -> None:
        playing = asyncio.create_task(step(env, "hang"))
        await asyncio.to_thread(wait_for, (obedient / "hanging").exists)
        os.kill(env.pid or 0, signal.SIGKILL)
        with pytest.raises(WorkerDied, match=r"was killed by SIGKILL \(out of memory\?\)"):
            await playing

    in_worker(play, folder=str(obedient))


@pytest.mark.parametrize("action", ["block", "hang"])
def test_a_time_out_kills_the_worker_at_once(action: str, obedient: Path) -> None:
    async def play(env: WorkerEnv) -> None:
        await env.reset(TASK, 1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await env.step(Action(action))
        assert not env.alive
        await asyncio.to_thread(wait_for, lambda: not is_running(env.pid), 5)

    in_worker(play, folder=str(obedient))


def test_a_cancelled_step_takes_what_the_env_has_started_with_it(obedient: Path) -> None:
    async def play(env: WorkerEnv) -> None:
        playing = asyncio.create_task(step(env, "hang_with_child"))
        await asyncio.to_thread(wait_for, (obedient / "hanging").exists)
        playing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await playing

    in_worker(play, folder=str(obedient))
    child = int((obedient / "child").read_text())
    wait_for(lambda: not is_running(child))


def test_a_task_that_is_not_json_safe_is_the_users_mistake_and_harms_no_worker() -> None:
    async def play(env: WorkerEnv) -> Observation:
        with pytest.raises(UsageError, match="cannot be sent its reset, which is not JSON-safe"):
            await env.reset(Task("odd", data={"name": {1, 2}}), 1)
        return await env.reset(TASK, 2)

    assert in_worker(play).text == "hello world 2"


def test_a_worker_only_plays() -> None:
    with pytest.raises(UsageError, match="only plays"):
        WorkerEnv("obedient:Obedient", {}).tasks("train")
    with pytest.raises(UsageError, match="only plays"):
        WorkerEnv("obedient:Obedient", {}).demonstrate(TASK)


@pytest.mark.parametrize(
    ("name", "options", "cause"),
    [
        ("nowhere:Env", {}, "env 'nowhere:Env' could not be imported: No module named 'nowhere'"),
        ("obedient:Missing", {}, "could not be imported: module 'obedient' has no attribute 'Missing'"),
        ("obedient:asyncio", {}, "'obedient:asyncio' is not a subclass of agentrl.Env"),
        ("obedient:Obedient", {"greting": "hi"}, "no option 'env.greting'; did you mean 'env.greeting'"),
        ("obedient:Picky", {}, "I do not like this machine"),
    ],
)
def test_an_env_that_cannot_be_made_says_why(name: str, options: dict[str, Any], cause: str) -> None:
    with pytest.raises(AgentRLError, match=cause):
        in_worker(lambda env: env.judge(), name, **options)


def test_an_env_that_takes_too_long_to_make_leaves_no_process(obedient: Path) -> None:
    env = WorkerEnv("obedient:Slow", {"folder": str(obedient)})
    with pytest.raises(WorkerDied, match="env 'obedient:Slow' was not ready within 2 s"):
        asyncio.run(env.start(2))
    assert not is_running(env.pid)


def test_closing_closes_the_env_and_may_be_done_twice(obedient: Path) -> None:
    async def close(env: WorkerEnv) -> None:
        await env.close()
        await env.close()

    in_worker(close, folder=str(obedient))
    assert (obedient / "closed").exists()


def test_an_env_that_never_closes_is_killed() -> None:
    async def run() -> int | None:
        env = WorkerEnv("obedient:StuckAtTheEnd", {}, close_seconds=0.2)
        await env.start(60)
        await env.close()
        return env.pid

    assert not is_running(asyncio.run(run()))


PARENT = """
import asyncio, json, sys
from agentrl import Action, Task
from agentrl.hosting import WorkerEnv

async def main():
    env = WorkerEnv("obedient:Obedient", {"folder": sys.argv[1]})
    await env.start()
    await env.reset(Task("greet", data={"name": "world"}), 1)
    print(json.dumps(env.pid), flush=True)
    await env.step(Action(sys.argv[2])) if sys.argv[2] else await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize("action", ["block", "hang_with_child", ""])
def test_workers_die_when_their_parent_is_killed(action: str, obedient: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    script = textwrap.dedent(PARENT)
    command = [sys.executable, "-c", script, str(obedient), action]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout
        worker = json.loads(parent.stdout.readline())
        if action:
            wait_for(lambda: (obedient / "blocking").exists() or (obedient / "hanging").exists())
        parent.kill()
    wait_for(lambda: not is_running(worker))
    if action == "hang_with_child":
        wait_for(lambda: not is_running(int((obedient / "child").read_text())))


def test_a_pool_of_workers_knows_its_env_before_it_starts_one() -> None:
    with pytest.raises(PluginError, match="no env 'no_such_env'"):
        WorkerPool("no_such_env", {}, 1)
