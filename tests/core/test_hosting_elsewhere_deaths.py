"""Episodes and workers elsewhere that die, hang, eat too much or are given up: real processes, real signals.

Each costs what was played in it and nothing else, is told with its cause, and leaves no process behind.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from agentrl import Action, Agent, Conversation, Observation, Trajectory, UsageError
from agentrl.config import SimulatorConfig
from agentrl.hooks import Hooks
from agentrl.hosting import EnvRaised, WorkerDied
from agentrl.hosting.elsewhere import RemotePool
from agentrl.simulator import Simulator
from agentrl.testing.engines import ScriptedEngine
from elsewhere import TASK, Short, Small, play, step, step_once
from processes import descendants, is_running, wait_for


@pytest.fixture(autouse=True)
def folder(elsewhere: Path) -> Path:
    """Have all envs set up."""
    return elsewhere


@pytest.mark.parametrize(
    ("action", "cause"),
    [
        ("exit", "(?s)operation step: its process ended with exit code 3.*something is wrong, so I leave"),
        ("system_exit", "ended with exit code 5"),
        ("crash", "was killed by SIGABRT"),
        ("garbage", "broke the protocol"),
    ],
)
def test_an_episode_that_dies_says_how_and_harms_no_other(action: str, cause: str) -> None:
    async def body(pool: RemotePool) -> Observation:
        with pytest.raises(WorkerDied, match=cause):
            await step(pool, action)
        assert pool.zygote
        pid = pool.zygote.pid
        answer = await step(pool, "fine")
        assert pool.zygote.pid == pid
        return answer

    assert play(body).text == "fine"


# Makes the second episode fail as where no process can be made for want of memory.
NO_MORE = """
def fork(plain=os.fork, forks=[]):
    forks.append(1)
    if len(forks) == 2:
        raise OSError(12, "out of memory")
    return plain()
os.fork = fork
"""


def test_a_process_that_cannot_be_made_costs_its_own_episode_only(folder: Path) -> None:
    async def body(pool: RemotePool) -> list[str]:
        async with pool.lease() as env:
            await env.reset(TASK, 1)
            with pytest.raises(WorkerDied, match="no process could be made"):
                await step(pool, "fine")
            return [(await env.step(Action("fine"))).text, (await step(pool, "fine")).text]

    assert play(body, size=2, folder=str(folder), preload=NO_MORE) == ["fine", "fine"]


def test_memory_is_limited() -> None:
    with pytest.raises(EnvRaised, match="MemoryError"):
        step_once("eat", Small)
    assert step_once("eat").text == str(1 << 29)


def test_an_episode_that_lasts_too_long_is_killed() -> None:
    with pytest.raises(WorkerDied, match="took longer than its environment's episode_seconds"):
        step_once("block", Short)


@pytest.mark.parametrize("how", ["time-out", "cancel"])
def test_giving_up_kills_the_episode_with_all_it_has_started(how: str, folder: Path) -> None:
    async def body(pool: RemotePool) -> set[int]:
        playing = asyncio.create_task(step(pool, "family"))
        await asyncio.to_thread(wait_for, (folder / "family").exists)
        assert pool.zygote
        zygote = pool.zygote.pid or 0
        assert len(descendants(zygote)) >= 3
        if how == "cancel":
            playing.cancel()
        with pytest.raises((asyncio.CancelledError, TimeoutError)):
            await asyncio.wait_for(playing, 0.1)
        await asyncio.to_thread(wait_for, lambda: not descendants(zygote), 5)
        return {int(pid) for pid in (folder / "family").read_text().split()}

    for pid in play(body, folder=str(folder)):
        assert not is_running(pid)


@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.1, 0.3])
def test_giving_up_while_the_worker_or_an_episode_starts_leaves_no_process(seconds: float) -> None:
    async def body(pool: RemotePool) -> None:
        playing = asyncio.create_task(step(pool, "who"))
        await asyncio.sleep(seconds)
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)

    play(body)


def test_two_hundred_episodes_leave_no_process_and_no_file_behind() -> None:
    async def body(pool: RemotePool) -> None:
        await step(pool, "who")
        assert pool.zygote
        zygote = pool.zygote.pid or 0
        before = files(), files(zygote), memory(zygote)
        for _ in range(25):
            await asyncio.gather(*(step(pool, "who") for _ in range(8)))
        await asyncio.to_thread(wait_for, lambda: not descendants(zygote), 5)
        assert files() <= before[0]
        assert files(zygote) == before[1]
        assert memory(zygote) - before[2] < 2_000

    play(body, size=8)


def files(pid: int | str = "self") -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def memory(pid: int) -> int:
    """Return kilobytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


@pytest.mark.parametrize(
    ("code", "error", "cause"),
    [
        ("import no_such_module", UsageError, "could not be prepared: ModuleNotFoundError: No module named"),
        ("os._exit(4)", WorkerDied, "it ended with exit code 4"),
        ("sys.exit('no')", UsageError, "SystemExit: no"),
    ],
)
def test_a_worker_that_cannot_be_prepared_says_why(code: str, error: type[Exception], cause: str) -> None:
    with pytest.raises(error, match=cause):
        step_once("fine", preload=code)


def test_a_zygote_that_dies_takes_its_episodes_with_it_and_is_started_again(folder: Path) -> None:
    async def body(pool: RemotePool) -> Observation:
        playing = asyncio.create_task(step(pool, "family"))
        await asyncio.to_thread(wait_for, (folder / "family").exists)
        assert pool.zygote
        os.kill(pool.zygote.pid or 0, signal.SIGKILL)
        with pytest.raises(WorkerDied, match="was lost when its worker died"):
            await playing
        child, stranger = map(int, (folder / "family").read_text().split())
        await asyncio.to_thread(wait_for, lambda: not is_running(child), 5)
        os.kill(stranger, signal.SIGKILL)  # in a session of its own, and nobody is left who knows whose it is
        return await step(pool, "fine")

    assert play(body, folder=str(folder)).text == "fine"


def test_a_zygote_that_does_not_answer_is_given_up_and_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agentrl.hosting.elsewhere.episode._BURIAL_SECONDS", 0.5)

    async def body(pool: RemotePool) -> Observation:
        await step(pool, "who")
        assert pool.zygote
        os.kill(pool.zygote.pid or 0, signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(step(pool, "fine"), 0.3)
        return await step(pool, "fine")

    assert play(body).text == "fine"


class Drawer(Agent):
    async def act(self, observation: Observation, conversation: Conversation) -> Action:
        return Action("draw")


async def simulate(pool: RemotePool) -> list[Trajectory]:
    limits = SimulatorConfig(reset_retries=0)
    hooks = Hooks(installed=False)
    simulator = Simulator(pool, Drawer, ScriptedEngine(lambda text: ""), limits, hooks, lambda text: None)
    groups = await simulator.play([TASK] * 10, 8, seed=3)
    return [trajectory for group in groups for trajectory in group.trajectories]


async def kill_at_random(pool: RemotePool) -> None:
    chance = random.Random(5)
    while True:
        await asyncio.sleep(0.1)
        if pool.zygote and pool.zygote.alive:
            zygote = pool.zygote.pid or 0
            victims = [zygote] if chance.random() < 0.1 else sorted(descendants(zygote))
            with suppress(ProcessLookupError, IndexError):
                os.kill(chance.choice(victims), signal.SIGKILL)


def test_killing_at_random_costs_trajectories_and_changes_no_other() -> None:
    async def troubled(pool: RemotePool) -> list[Trajectory]:
        killing = asyncio.create_task(kill_at_random(pool))
        try:
            return await simulate(pool)
        finally:
            killing.cancel()

    def ends(trajectories: list[Trajectory]) -> list[str | None]:
        return [None if each.failed or not each.final else each.final.text for each in trajectories]

    calm, survived = ends(play(simulate, size=8)), ends(play(troubled, size=8))
    assert None not in calm
    assert len(set(calm)) == 80, "each episode has a seed of its own"
    assert 0 < survived.count(None) < 80
    assert all(left in (None, right) for left, right in zip(survived, calm, strict=True))


PARENT = """
import asyncio, sys
from pathlib import Path
from elsewhere import Elsewhere, step
from agentrl.hosting.elsewhere import RemotePool, site

site._folder_of = lambda env: Path(sys.argv[1])

async def main():
    pool = RemotePool(Elsewhere(Elsewhere.Config(folder=sys.argv[1])), 1)
    await step(pool, "family")

asyncio.run(main())
"""


def test_everything_dies_when_we_are_killed(folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PARENT, str(folder)]
    with subprocess.Popen(command, env=environment) as parent:
        wait_for((folder / "family").exists, 30)
        started = descendants(parent.pid)
        assert len(started) >= 4
        parent.kill()
    wait_for(lambda: not any(map(is_running, started)))
