"""Requests to the engine come and go as they like, are cancelled, fail or are refused, and disturb nobody."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from agentrl.errors import AgentRLError, UsageError
from agentrl.interfaces import Resources
from agentrl.types import Completion, Sampling
from agentrl_torch import TorchEngine
from plain_generation import VOCAB, Plain, some_ids, start, together


def test_a_request_that_arrives_later_joins_and_may_finish_first(engine: TorchEngine) -> None:
    async def scene() -> list[str]:
        order: list[str] = []

        async def ask(name: str, length: int) -> None:
            await engine.generate(some_ids(length, 5), Sampling(max_tokens=length), name)
            order.append(name)

        long = asyncio.create_task(ask("long", 480))
        await asyncio.sleep(0.02)
        await ask("short", 2)
        await long
        return order

    assert asyncio.run(scene()) == ["short", "long"]


def test_the_event_loop_stays_responsive_while_the_engine_works(engine: TorchEngine) -> None:
    async def scene() -> int:
        task = asyncio.create_task(engine.generate(some_ids(0, 5), Sampling(max_tokens=400), "s"))
        ticks = 0
        while not task.done():
            await asyncio.sleep(0.001)
            ticks += 1
        return ticks

    assert asyncio.run(scene()) > 20


def test_two_requests_of_one_session_are_served_one_after_the_other(engine: TorchEngine, qwen: Path) -> None:
    ids = some_ids(0, 9)
    calls = [engine.generate(ids, Sampling(max_tokens=4, seed=seed), "same") for seed in range(3)]
    for completion in asyncio.run(together(*calls)):
        Plain(qwen).check(ids, completion)


def test_a_cancelled_request_frees_its_row_and_disturbs_nobody(engine: TorchEngine) -> None:
    ids, wish = some_ids(0, 20), Sampling(max_tokens=100, seed=3)
    expected = asyncio.run(engine.generate(ids, wish, "alone"))

    async def scene() -> Completion:
        doomed = [
            asyncio.create_task(engine.generate(some_ids(i, 9), Sampling(max_tokens=400), f"d{i}"))
            for i in range(3)
        ]
        kept = asyncio.create_task(engine.generate(ids, wish, "kept"))
        await asyncio.sleep(0.03)
        for task in doomed:
            task.cancel()
            engine.release(f"d{doomed.index(task)}")
        return await kept

    completion = asyncio.run(scene())
    assert completion.token_ids == expected.token_ids
    asyncio.run(engine.generate(ids, Sampling(max_tokens=1), "last"))
    assert set(engine._loaded().store.sessions) == {"alone", "kept", "last"}
    assert not engine._loaded().busy


def test_a_session_can_go_on_after_its_request_was_cancelled(engine: TorchEngine, qwen: Path) -> None:
    ids = some_ids(0, 20)

    async def scene() -> Completion:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(engine.generate(ids, Sampling(max_tokens=450), "s"), 0.03)
        return await engine.generate([*ids, 7, 8], Sampling(max_tokens=4), "s")

    Plain(qwen).check([*ids, 7, 8], asyncio.run(scene()))


def test_a_failure_reaches_every_caller_and_the_engine_goes_on(
    engine: TorchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> list[Any]:
        calls = [engine.generate(some_ids(i, 9), Sampling(max_tokens=5), f"s{i}") for i in range(3)]
        return await asyncio.gather(*calls, return_exceptions=True)

    expected = asyncio.run(scene())
    with monkeypatch.context() as patch:
        patch.setattr(engine._loaded().model, "forward", lambda **_: 1 / 0)
        failures = asyncio.run(scene())
    assert [type(failure) for failure in failures] == [RuntimeError] * 3
    assert all("division by zero" in str(failure) for failure in failures)
    assert asyncio.run(scene()) == expected


def test_a_failure_while_cleaning_up_reaches_the_callers_too(
    engine: TorchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine._loaded().model, "forward", lambda **_: 1 / 0)
    monkeypatch.setattr(engine._loaded(), "reset", lambda: [][0])
    with pytest.raises(RuntimeError, match="index out of range"):
        asyncio.run(engine.generate(some_ids(0, 9), Sampling(max_tokens=5), "s"))


@pytest.mark.parametrize(("length", "wanted"), [(0, 5), (5, 0), (500, 13)])
def test_what_cannot_be_continued_is_refused(engine: TorchEngine, length: int, wanted: int) -> None:
    with pytest.raises(UsageError):
        asyncio.run(engine.generate(some_ids(0, length), Sampling(max_tokens=wanted), "s"))


def test_an_id_that_the_model_does_not_have_is_refused(engine: TorchEngine) -> None:
    with pytest.raises(UsageError, match="vocabulary ends at 299"):
        asyncio.run(engine.generate([5, VOCAB], Sampling(max_tokens=1), "s"))


def test_an_engine_can_be_closed_twice_and_then_says_that_it_is_closed(qwen: Path) -> None:
    engine = start(qwen)

    async def scene() -> Any:
        task = asyncio.create_task(engine.generate([5], Sampling(max_tokens=400), "s"))
        await asyncio.sleep(0.01)
        await engine.close()
        await engine.close()
        return (await asyncio.gather(task, return_exceptions=True))[0]

    assert isinstance(asyncio.run(scene()), AgentRLError)
    with pytest.raises(AgentRLError, match="not running"):
        asyncio.run(engine.generate([5], Sampling(max_tokens=1), "s"))


def test_torch_uses_the_threads_it_was_given_in_the_thread_that_computes(qwen: Path) -> None:
    engine = TorchEngine()
    asyncio.run(engine.start(qwen, Resources(threads=2)))
    executor: ThreadPoolExecutor = engine._running()._executor
    assert executor.submit(torch.get_num_threads).result() == 2
    asyncio.run(engine.close())
    torch.set_num_threads(1)
