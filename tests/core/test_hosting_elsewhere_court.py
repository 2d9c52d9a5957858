"""A judge's process makes as many judgements as its env allows; one that has died costs no judgement."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from agentrl.hosting.elsewhere.court import Court
from agentrl.hosting.elsewhere.remote_env import WORKER
from agentrl.hosting.elsewhere.zygote import Preload
from agentrl.hosting.process import WorkerDied
from agentrl.hosting.worker_env import EnvRaised

T = TypeVar("T")
JUDGE = """
import os
import time


def judge(task, seed, records, config):
    if records == ["die"]:
        os._exit(3)
    if records == ["raise"]:
        raise RuntimeError("no such thing")
    if records == ["slow"]:
        time.sleep(0.3)
    return {"success": True, "answer": str(os.getpid())}
"""


def hold(body: Callable[[Court], Awaitable[T]], folder: Path, most: int) -> T:
    """Return what `body` makes of a court, which is closed afterwards."""
    (folder / "justice.py").write_text(JUDGE)
    order = {
        "worker": str(folder / "justice.py"),
        "config": {},
        "memory_mb": None,
        "episode_seconds": None,
        "enclosure": None,
    }
    preload = Preload("env 'fair'", [sys.executable, "-u", str(WORKER)], {}, folder, order, 1 << 20)

    async def run() -> T:
        court = Court("fair", {}, preload, most, 2.0)
        try:
            return await body(court)
        finally:
            await court.close()

    return asyncio.run(asyncio.wait_for(run(), 60))


async def judge(court: Court, seed: int, what: str = "") -> int:
    """Return the process that judged."""
    return int((await court.judge({"id": "a"}, seed, [what])).answer or 0)


@pytest.mark.parametrize(("most", "processes"), [(1, [0, 1, 2, 3]), (2, [0, 0, 1, 1]), (9, [0, 0, 0, 0])])
def test_a_process_makes_as_many_judgements_as_the_env_allows(
    most: int, processes: list[int], tmp_path: Path
) -> None:
    async def body(court: Court) -> list[int]:
        return [await judge(court, seed) for seed in range(4)]

    pids = hold(body, tmp_path, most)
    assert [list(dict.fromkeys(pids)).index(pid) for pid in pids] == processes


def test_judgements_at_once_have_processes_of_their_own(tmp_path: Path) -> None:
    async def body(court: Court) -> list[int]:
        return list(await asyncio.gather(*(judge(court, seed, "slow") for seed in range(3))))

    assert len(set(hold(body, tmp_path, 9))) == 3


def test_a_process_that_died_while_it_waited_is_replaced(tmp_path: Path) -> None:
    async def body(court: Court) -> tuple[int, int]:
        first = await judge(court, 0)
        os.kill(first, signal.SIGKILL)
        return first, await judge(court, 1)

    first, second = hold(body, tmp_path, 9)
    assert first != second


def test_evidence_that_kills_a_process_is_told_to_one_more_and_then_given_up(tmp_path: Path) -> None:
    async def body(court: Court) -> tuple[int, int]:
        first = await judge(court, 0)
        with pytest.raises(WorkerDied, match="exit code 3"):
            await judge(court, 1, "die")
        return first, await judge(court, 2)

    first, second = hold(body, tmp_path, 9)
    assert first != second


def test_a_process_whose_judge_raised_judges_no_more(tmp_path: Path) -> None:
    async def body(court: Court) -> tuple[int, int]:
        first = await judge(court, 0)
        with pytest.raises(EnvRaised, match="no such thing"):
            await judge(court, 1, "raise")
        return first, await judge(court, 2)

    first, second = hold(body, tmp_path, 9)
    assert first != second
