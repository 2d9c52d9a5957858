"""What was judged once is not judged again, and nothing that failed is taken for a judgement."""

import asyncio
from typing import Any

import pytest

from agentrl.hosting.elsewhere import judgements
from agentrl.hosting.elsewhere.judgements import Judgements


class Judge:
    """Says how often it was asked; fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.asked = 0
        self.failures = failures

    async def __call__(self) -> Any:
        self.asked += 1
        await asyncio.sleep(0.01)
        if self.failures:
            self.failures -= 1
            raise RuntimeError("the judge is ill")
        return {"number": self.asked, "failed": []}


def test_equal_evidence_is_judged_once_also_where_it_comes_at_once() -> None:
    async def run() -> None:
        judge, said = Judge(), Judgements()
        evidence = [{"id": "a"}, 1, [{"calls": []}]]
        again = [{"id": "a"}, 1, [{"calls": []}]]
        replies = await asyncio.gather(*(said.of(each, judge) for each in (evidence, again, evidence)))
        assert replies == [{"number": 1, "failed": []}] * 3
        replies[0]["failed"].append("changed by who got it")
        assert await said.of(evidence, judge) == {"number": 1, "failed": []}
        assert judge.asked == 1

    asyncio.run(run())


@pytest.mark.parametrize("other", [[{"id": "b"}, 1, []], [{"id": "a"}, 2, []], [{"id": "a"}, 1, [{}]]])
def test_other_evidence_is_judged_anew(other: Any) -> None:
    async def run() -> None:
        judge, said = Judge(), Judgements()
        await said.of([{"id": "a"}, 1, []], judge)
        assert (await said.of(other, judge))["number"] == 2

    asyncio.run(run())


def test_who_waits_for_a_judgement_that_fails_asks_again() -> None:
    async def run() -> None:
        judge, said = Judge(failures=1), Judgements()
        first, second = await asyncio.gather(said.of(1, judge), said.of(1, judge), return_exceptions=True)
        assert isinstance(first, RuntimeError)
        assert second == {"number": 2, "failed": []}

    asyncio.run(run())


def test_who_waits_for_a_judgement_that_is_cancelled_asks_again() -> None:
    async def run() -> None:
        judge, said = Judge(), Judgements()
        first = asyncio.create_task(said.of(1, judge))
        second = asyncio.create_task(said.of(1, judge))
        await asyncio.sleep(0.001)
        first.cancel()
        assert (await second)["number"] == 2
        assert first.cancelled()

    asyncio.run(run())


def test_the_oldest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judgements, "REMEMBERED", 2)

    async def run() -> None:
        judge, said = Judge(), Judgements()
        for evidence in (1, 2, 3, 3, 1):
            await said.of(evidence, judge)
        assert judge.asked == 4

    asyncio.run(run())
