"""Collecting ahead: what is begun when, in what order it is taken, and how it ends."""

import asyncio
from typing import Any, cast

import pytest

from agentrl import AgentRLError, Group, Segment, Span, Task, Trajectory
from agentrl.ahead import Ahead
from agentrl.collection import Collection, Collector
from agentrl.metrics import staleness
from agentrl.together import in_thread


class Chooser:
    """Stands for a curriculum: its state says for how many updates it has chosen, and how many it knows."""

    def __init__(self) -> None:
        self.chosen = self.learnt = 0

    def state(self) -> dict[str, Any]:
        return {"chosen": self.chosen, "learnt": self.learnt}


class FakeCollector:
    """Collects each update once it is allowed to."""

    def __init__(self, fails: int | None = None) -> None:
        self.curriculum = Chooser()
        self.begun: list[int] = []
        self.cancelled: list[int] = []
        self.allowed = {step: asyncio.Event() for step in range(1, 9)}
        self.fails = fails

    async def collect(self, step: int) -> Collection:
        self.begun.append(step)
        self.curriculum.chosen += 1
        if step == self.fails:
            raise AgentRLError("all episodes failed")
        try:
            await self.allowed[step].wait()
        except asyncio.CancelledError:
            self.cancelled.append(step)
            raise
        self.curriculum.learnt += 1
        return Collection([Group(Task(str(step)), [])], [True])


def ahead(collector: FakeCollector, staleness: int, last: int = 8) -> Ahead:
    return Ahead(cast(Collector, collector), staleness, last)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize(("lag", "begun"), [(0, [1]), (1, [1, 2]), (3, [1, 2, 3, 4])])
def test_as_many_updates_are_begun_ahead_as_staleness_says(lag: int, begun: list[int]) -> None:
    async def run() -> None:
        collector = FakeCollector()
        under_way = ahead(collector, lag)
        first = asyncio.create_task(under_way.take(1))
        await settle()
        assert collector.begun == begun
        # What was begun ahead may be done first; it is taken in its turn.
        for step in reversed(begun):
            collector.allowed[step].set()
        assert (await first).played[0].task.id == "1"
        await settle()
        assert collector.begun == begun, "the next is begun when the next is taken, under new weights"
        for step in begun[1:]:
            assert (await under_way.take(step)).played[0].task.id == str(step)
        await under_way.close()

    asyncio.run(run())


def test_nothing_is_begun_beyond_the_last_update() -> None:
    async def run() -> list[int]:
        collector = FakeCollector()
        collector.allowed[2].set()
        await ahead(collector, 4, last=2).take(2)
        return collector.begun

    assert asyncio.run(run()) == [2]


def test_a_checkpoint_gets_the_curriculum_from_before_it_chose_for_the_next_update() -> None:
    async def run() -> None:
        collector = FakeCollector()
        under_way = ahead(collector, 1, last=2)
        first = asyncio.create_task(under_way.take(1))
        await settle()
        collector.allowed[1].set()
        await first
        assert collector.curriculum.state() == {"chosen": 2, "learnt": 1}
        assert under_way.curriculum_state(1) == {"chosen": 1, "learnt": 0}
        collector.allowed[2].set()
        await under_way.take(2)
        assert under_way.curriculum_state(2) == {"chosen": 2, "learnt": 2}

    asyncio.run(run())


def test_what_is_under_way_is_given_up_at_the_end() -> None:
    async def run() -> list[int]:
        collector = FakeCollector()
        under_way = ahead(collector, 2)
        collector.allowed[1].set()
        await under_way.take(1)
        await settle()
        await under_way.close()
        return collector.cancelled

    assert asyncio.run(run()) == [2, 3]


def test_a_failure_ahead_is_told_when_its_update_is_due() -> None:
    async def run() -> None:
        collector = FakeCollector(fails=2)
        under_way = ahead(collector, 1)
        collector.allowed[1].set()
        await under_way.take(1)
        await settle()
        with pytest.raises(AgentRLError, match="all episodes failed"):
            await under_way.take(2)
        await under_way.close()

    asyncio.run(run())


def test_staleness_is_told_by_token() -> None:
    spans = [Span(0, [-1.0] * 3, 0, version=4), Span(5, [-1.0], 1, version=6)]
    group = Group(Task("t"), [Trajectory(Task("t"), segments=[Segment([0] * 6, spans)])])
    assert staleness([group], 6) == {"staleness/mean": 1.5, "staleness/max": 2.0}
    assert staleness([], 6) == {"staleness/mean": 0.0, "staleness/max": 0.0}


def test_a_cancellation_waits_for_what_runs_in_a_thread_and_is_raised_after_it() -> None:
    async def run() -> tuple[list[str], int]:
        done, may_end = list[str](), asyncio.Event()
        loop = asyncio.get_running_loop()

        def work() -> str:
            asyncio.run_coroutine_threadsafe(may_end.wait(), loop).result()
            return "worked"

        async def caller() -> None:
            done.append(await in_thread(work))
            done.append("recorded")
            await asyncio.sleep(0)
            done.append("went on")

        task = asyncio.create_task(caller())
        await settle()
        task.cancel()
        await settle()
        assert not task.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        return done, task.cancelling()

    # As asyncio counts it, there was one request, so that Ctrl-C is told from other cancellations.
    assert asyncio.run(run()) == (["worked", "recorded"], 1)
