"""Collects the groups of updates, some of them ahead: while the trainer learns, the next ones are played.

With a staleness of S, the groups of update k are begun as soon as update k - 1 - S is done, so the oldest
weights that sampled for an update lack S updates. Nothing is thrown away and nobody waits for the slowest
episode alone: an episode goes on under the engine's newest weights, and each span says which sampled it. With
a staleness of 0, updates are collected one by one.

The overlap is that of AReaL (Fu et al. 2025, arXiv:2505.24298, section 4), with two differences: (1) each
update waits for its own groups, so that every episode is learnt from in its turn; (2) new weights wait for
the completions that are under way, so that a completion is of one version, unless the engine has another way.
"""

import asyncio
from typing import Any

from agentrl.collection import Collection, Collector


class Ahead:
    """The collections of updates that are under way."""

    def __init__(self, collector: Collector, staleness: int, last: int) -> None:
        """Begin nothing yet; `last` is the last update there will be."""
        self._collector = collector
        self._staleness = staleness
        self._last = last
        self._running: dict[int, asyncio.Task[Collection]] = {}
        self._before: dict[int, dict[str, Any]] = {}

    async def take(self, step: int) -> Collection:
        """Return the groups of update `step`, which are those of `Collector.collect`; called step by step.

        Raises:
            AgentRLError: what it raises.
        """
        for each in range(step, min(step + self._staleness, self._last) + 1):
            if each not in self._running:
                self._running[each] = asyncio.create_task(self._collect(each))
        try:
            return await self._running[step]
        finally:
            del self._running[step]

    def curriculum_state(self, step: int) -> dict[str, Any]:
        """Return the curriculum as it is after update `step`, before it chose for the next.

        That is before it learnt from the last groups, if it chose while they were played: a run that is
        resumed from there has lost what those of as many updates as it plays ahead have taught it.
        """
        self._before = {each: state for each, state in self._before.items() if each > step}
        if step + 1 in self._before:
            return self._before[step + 1]
        return self._collector.curriculum.state()

    async def close(self) -> None:
        """Give up what is under way."""
        running, self._running = self._running, {}
        for each in running.values():
            each.cancel()
        await asyncio.gather(*running.values(), return_exceptions=True)

    async def _collect(self, step: int) -> Collection:
        self._before[step] = self._collector.curriculum.state()
        return await self._collector.collect(step)
