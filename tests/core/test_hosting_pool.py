"""Pools lend envs, reuse them, replace broken ones and leave no process behind."""

import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from agentrl import Action, AgentRLError, Env, Observation, Outcome, Task, UsageError
from agentrl.hosting import EnvPool, InProcessPool, WorkerEnv, WorkerPool
from processes import is_running

SLEEPER = """
import asyncio
from agentrl import Env, Observation, Outcome

class Sleeper(Env):
    def tasks(self, split):
        return []

    async def reset(self, task, seed):
        return Observation("good night")

    async def step(self, action):
        await asyncio.sleep(600)

    async def judge(self):
        return Outcome(False)
"""
TASK = Task("sleep")


class Remembering(Env):
    """Remembers which instances were made and closed."""

    made: list["Remembering"] = []

    def __init__(self) -> None:
        super().__init__()
        self.closed = 0
        self.made.append(self)

    def tasks(self, split: str) -> Sequence[Task]:
        return []

    async def reset(self, task: Task, seed: int) -> Observation:
        return Observation("")

    async def step(self, action: Action) -> Observation:
        return Observation("")

    async def judge(self) -> Outcome:
        return Outcome(False)

    async def close(self) -> None:
        self.closed += 1


class Unclosable(Remembering):
    async def close(self) -> None:
        raise RuntimeError("I stay")


class Endless(Remembering):
    async def close(self) -> None:
        await asyncio.sleep(600)


@pytest.fixture(autouse=True)
def sleeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(Remembering, "made", [])


def workers(size: int) -> WorkerPool:
    return WorkerPool("sleeper:Sleeper", {}, size, start_seconds=60)


def children() -> set[int]:
    """Return the running processes that this one has started."""
    tasks = Path("/proc/self/task").iterdir()
    found = {int(pid) for task in tasks for pid in (task / "children").read_text().split()}
    return {pid for pid in found if is_running(pid)}


async def lend(pool: EnvPool) -> WorkerEnv:
    env = await pool.acquire()
    assert isinstance(env, WorkerEnv)
    return env


def test_an_env_is_made_when_needed_and_reused() -> None:
    async def run() -> None:
        pool = InProcessPool(Remembering, 2)
        assert Remembering.made == []
        first = await pool.acquire()
        await pool.release(first)
        assert await pool.acquire() is first
        assert await pool.acquire() is not first
        await pool.close()
        assert [env.closed for env in Remembering.made] == [1, 1]

    asyncio.run(run())


def test_a_broken_env_is_closed_and_replaced() -> None:
    async def run() -> None:
        pool = InProcessPool(Remembering, 1)
        with pytest.raises(ZeroDivisionError):
            async with pool.lease():
                raise ZeroDivisionError
        async with pool.lease() as fresh:
            assert fresh is Remembering.made[1]
        assert [env.closed for env in Remembering.made] == [1, 0]

    asyncio.run(run())


@pytest.mark.parametrize("env", [Unclosable, Endless])
def test_an_env_that_cannot_be_closed_is_named_and_left_behind(
    env: type[Env], caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        pool = InProcessPool(env, 1, close_seconds=0.05)
        await pool.release(await pool.acquire(), broken=True)
        await pool.close()

    asyncio.run(run())
    assert f"{env.__name__}.close" in caplog.text


def test_who_asks_while_all_are_lent_waits_its_turn() -> None:
    async def run() -> None:
        pool = InProcessPool(Remembering, 1)
        first = await pool.acquire()
        waiting = asyncio.create_task(pool.acquire())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        await pool.release(first)
        assert await waiting is first

    asyncio.run(run())


def test_giving_up_waiting_costs_no_place() -> None:
    async def run() -> None:
        pool = InProcessPool(Remembering, 1)
        first = await pool.acquire()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pool.acquire(), 0.01)
        await pool.release(first)
        assert await asyncio.wait_for(pool.acquire(), 1) is first

    asyncio.run(run())


def test_a_factory_that_fails_costs_no_place() -> None:
    async def run() -> None:
        attempts = iter([True, False])

        def factory() -> Env:
            if next(attempts):
                raise UsageError("not today")
            return Remembering()

        pool = InProcessPool(factory, 1)
        with pytest.raises(UsageError, match="not today"):
            await pool.acquire()
        assert await asyncio.wait_for(pool.acquire(), 1) is Remembering.made[0]

    asyncio.run(run())


def test_misuse_is_told() -> None:
    async def run() -> None:
        with pytest.raises(UsageError, match="a pool of 0 envs"):
            InProcessPool(Remembering, 0)
        pool = InProcessPool(Remembering, 1)
        with pytest.raises(ValueError, match="has not lent"):
            await pool.release(Remembering())
        await pool.close()
        with pytest.raises(AgentRLError, match="is closed"):
            await pool.acquire()

    asyncio.run(run())


def test_workers_are_separate_processes_and_are_reused() -> None:
    async def run() -> None:
        pool = workers(2)
        assert children() == set()
        first, second = await asyncio.gather(lend(pool), lend(pool))
        assert children() == {first.pid, second.pid}
        await pool.release(first)
        assert await pool.acquire() is first
        await pool.close()
        assert children() == set()

    asyncio.run(run())


def test_a_worker_that_died_while_idle_is_replaced() -> None:
    async def run() -> None:
        pool = workers(1)
        first = await lend(pool)
        await pool.release(first)
        os.kill(first.pid or 0, signal.SIGKILL)
        while first.alive:
            await asyncio.sleep(0.01)
        second = await lend(pool)
        assert second.pid != first.pid
        assert await second.reset(TASK, 1) == Observation("good night")
        await pool.close()
        assert children() == set()

    asyncio.run(run())


def test_a_step_that_times_out_gives_its_place_to_a_fresh_worker() -> None:
    async def run() -> None:
        pool = workers(1)

        async def play() -> None:
            async with pool.lease() as env:
                await env.reset(TASK, 1)
                await asyncio.wait_for(env.step(Action("")), 0.1)

        with pytest.raises(TimeoutError):
            await play()
        async with pool.lease() as fresh:
            assert await fresh.reset(TASK, 1) == Observation("good night")
        await pool.close()
        assert children() == set()

    asyncio.run(run())


@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.1, 0.3])
def test_giving_up_while_a_worker_starts_leaves_no_process(seconds: float) -> None:
    async def run() -> None:
        pool = workers(1)
        acquiring = asyncio.create_task(pool.acquire())
        await asyncio.sleep(seconds)
        acquiring.cancel()
        await asyncio.gather(acquiring, return_exceptions=True)
        await pool.close()
        while children():
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(run(), 20))


def test_closing_the_pool_ends_lent_workers_and_their_later_release_is_fine() -> None:
    async def run() -> None:
        pool = workers(1)
        env = await lend(pool)
        await env.reset(TASK, 1)
        playing = asyncio.create_task(env.step(Action("")))
        await asyncio.sleep(0.05)
        await pool.close()
        assert children() == set()
        with pytest.raises(AgentRLError, match="worker process"):
            await playing
        await pool.release(env, broken=True)

    asyncio.run(asyncio.wait_for(run(), 20))


def test_giving_up_while_the_pool_closes_leaves_no_process() -> None:
    async def run() -> None:
        pool = workers(1)
        await pool.release(await pool.acquire())
        closing = asyncio.create_task(pool.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        while children():
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(run(), 20))
