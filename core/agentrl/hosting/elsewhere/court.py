"""Where episodes are judged: in processes apart, each of which may judge several."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from agentrl.hosting import codec
from agentrl.hosting.elsewhere.episode import EpisodeProcess
from agentrl.hosting.elsewhere.judgements import Judgements
from agentrl.hosting.elsewhere.keeper import Keeper
from agentrl.hosting.elsewhere.zygote import Preload, Zygote
from agentrl.hosting.process import WorkerDied
from agentrl.hosting.worker_env import WorkerEnv
from agentrl.types import Outcome


class Court:
    """Judges by evidence; equal evidence once."""

    def __init__(
        self, name: str, config: Mapping[str, Any], preload: Preload, most: int, close_seconds: float
    ) -> None:
        """Take how to run what forks the processes; nothing is started yet.

        Args:
            name: of the env.
            config: what the judge gets with the evidence.
            preload: how to run it.
            most: judgements of one process.
            close_seconds: how long the `close` of a process may take.
        """
        self._name = name
        self._config = config
        self._judges = Keeper(preload)
        self._most = most
        self._close_seconds = close_seconds
        self._judgements = Judgements()
        self._idle: list[_Bench] = []

    async def open(self) -> None:
        """See to it that judges can be forked.

        Raises:
            AgentRLError: they cannot.
        """
        await self._judges.living()

    async def judge(self, task: codec.Json, seed: int, records: Sequence[Any]) -> Outcome:
        """Return what the judge says of an episode.

        Raises:
            WorkerDied: the judge's process died.
            EnvRaised: it raised.
        """
        evidence = [task, seed, records, self._config]
        reply = await self._judgements.of(evidence, partial(self._decide, evidence))
        return codec.outcome_from_json(reply, f"judge of env {self._name!r}")

    async def close(self) -> None:
        """End every process. May be called twice."""
        try:
            while self._idle:
                await self._idle.pop().close()
            await self._judges.close()
        finally:
            self._judges.kill()

    async def _decide(self, evidence: Sequence[Any]) -> Any:
        while self._idle:
            try:
                return await self._ask(self._idle.pop(), evidence)
            except WorkerDied:
                continue  # what it judged before, or its age, may be to blame; only a new one's word counts
        bench = _Bench(self._name, self._config, self._close_seconds, await self._judges.living())
        return await self._ask(bench, evidence)

    async def _ask(self, bench: "_Bench", evidence: Sequence[Any]) -> Any:
        try:
            said = await bench.decide(evidence)
        except BaseException:
            await bench.close()
            raise
        if bench.judged < self._most:
            self._idle.append(bench)
        else:
            await bench.close()
        return said


class _Bench(WorkerEnv):
    """A process that judges."""

    def __init__(self, name: str, config: Mapping[str, Any], close_seconds: float, zygote: Zygote) -> None:
        super().__init__(name, config, close_seconds, EpisodeProcess(zygote))
        self.judged = 0

    async def decide(self, evidence: Sequence[Any]) -> Any:
        """Return what the judge says, JSON-safe."""
        if self.judged == 0:
            await self._process.start()
        self.judged += 1
        return await self._ask("judge", {"evidence": evidence})
