"""The sides of `engines.py`, each in a process of its own: the same requests to vLLM itself and to agentrl.

All are started with the same arguments of vLLM's `EngineArgs` (but that agentrl does without vLLM's
tokenizer), and send it the same ids with the same `SamplingParams`; where a string ends turns, vLLM itself
and agentrl look for it each in its own way. vLLM itself is driven in the shortest way there is: in its
process, `LLM.generate` where all requests are known, else its loop with a follow-up added as soon as a step
has ended a turn; from another process, `AsyncLLM`.
"""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from work import VOCABULARY, Seconds, Stopwatch

from agentrl.interfaces import Resources
from agentrl.types import Sampling
from agentrl_vllm import VLLMEngine

Range = tuple[int, int]
# Ends turns, and never comes.
NEVER = "\n</a string that no random model says>"
# Ids that every model here has, and that stand for nothing special.
_IDS = range(10, VOCABULARY)


@dataclass(frozen=True, slots=True)
class Talks:
    """Conversations that go on side by side: from how many to how many tokens, and turns, each has.

    `stop` are strings that end a turn.
    """

    name: str
    number: int
    turns: Range
    prompt: Range
    observation: Range
    new: Range
    stop: tuple[str, ...] = ()

    def script(self, seed: int) -> "Script":
        """Return for each conversation, turn by turn, what is given and how many tokens are to be sampled."""
        draw = random.Random(f"{self.name} {seed}")
        return [
            [
                (draw.choices(_IDS, k=draw.randint(*(self.observation if turn else self.prompt))), each)
                for turn, each in enumerate(draw.randint(*self.new) for _ in range(draw.randint(*self.turns)))
            ]
            for _ in range(self.number)
        ]


Script = list[list[tuple[list[int], int]]]
# Ids, how many tokens are to come, and a seed; returns those that came.
Ask = Callable[[list[int], int, int, int], Awaitable[Sequence[int]]]


@dataclass(frozen=True, slots=True)
class Played:
    """What a side took for some talks, and how many tokens it was given and sampled."""

    seconds: Seconds
    read: int
    sampled: int


class AgentRL:
    """agentrl's engine plugin: `Engine.generate`, with log-probabilities."""

    def __init__(self, model: Path, threads: int, engines: int) -> None:
        """Take how many vLLMs are to have processes of their own; 0 is one in this process."""
        self._model, self._threads = model, threads
        self._engine = VLLMEngine(VLLMEngine.Config(engines=engines))

    async def start(self) -> None:
        """Load the model."""
        await self._engine.start(self._model, Resources(threads=self._threads))

    async def play(self, script: Script, stop: tuple[str, ...]) -> int:
        """Return how many tokens were sampled."""
        return await _converse(script, partial(self._ask, stop))

    async def close(self) -> None:
        """Release everything."""
        await self._engine.close()

    async def _ask(
        self, stop: tuple[str, ...], ids: list[int], new: int, seed: int, talk: int
    ) -> Sequence[int]:
        sampling = Sampling(max_tokens=new, seed=seed, stop=stop)
        completion = await self._engine.generate(ids, sampling, str(talk))
        return completion.token_ids


class Raw:
    """vLLM in this process."""

    def __init__(self, model: Path, threads: int) -> None:
        """Take the model."""
        self._model, self._threads = model, threads

    async def start(self) -> None:
        """Load the model."""
        import torch

        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        setup = _setup(self._model, self._threads)
        self._ends = list(setup.end_ids)
        torch.set_num_threads(setup.threads)
        from vllm import LLM

        self._llm = LLM(model=setup.model, **setup.arguments)

    async def play(self, script: Script, stop: tuple[str, ...]) -> int:
        """Return how many tokens were sampled."""
        if all(len(turns) == 1 for turns in script):
            return self._single(script, stop)
        return self._converse(script, stop)

    async def close(self) -> None:
        """Release everything."""
        self._llm.llm_engine.engine_core.shutdown()

    def _single(self, script: Script, stop: tuple[str, ...]) -> int:
        prompts = [{"prompt_token_ids": ids} for ((ids, _),) in script]
        params = [_params(new, _seed(talk, 0), self._ends, stop) for talk, ((_, new),) in enumerate(script)]
        outputs = self._llm.generate(prompts, params, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    def _converse(self, script: Script, stop: tuple[str, ...]) -> int:
        engine, sampled = self._llm.llm_engine, 0
        histories: list[list[int]] = [[] for _ in script]

        def ask(talk: int, turn: int) -> None:
            ids, new = script[talk][turn]
            histories[talk] += ids
            prompt = {"prompt_token_ids": list(histories[talk])}
            engine.add_request(f"{talk} {turn}", prompt, _params(new, _seed(talk, turn), self._ends, stop))

        for talk in range(len(script)):
            ask(talk, 0)
        while engine.has_unfinished_requests():
            for output in engine.step():
                talk, turn = map(int, output.request_id.split())
                new_ids = output.outputs[0].token_ids
                sampled += len(new_ids)
                histories[talk] += new_ids
                if turn + 1 < len(script[talk]):
                    ask(talk, turn + 1)
        return sampled


class RawElsewhere:
    """vLLM's `AsyncLLM`, which computes in another process."""

    def __init__(self, model: Path, threads: int) -> None:
        """Take the model."""
        self._model, self._threads = model, threads

    async def start(self) -> None:
        """Load the model."""
        setup = _setup(self._model, self._threads)
        self._ends = list(setup.end_ids)
        os.environ["OMP_NUM_THREADS"] = str(setup.threads)
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        self._llm = AsyncLLM.from_engine_args(AsyncEngineArgs(model=setup.model, **setup.arguments))

    async def play(self, script: Script, stop: tuple[str, ...]) -> int:
        """Return how many tokens were sampled."""
        return await _converse(script, partial(self._ask, stop))

    async def close(self) -> None:
        """Release everything."""
        self._llm.shutdown()
        del self._llm

    async def _ask(
        self, stop: tuple[str, ...], ids: list[int], new: int, seed: int, talk: int
    ) -> Sequence[int]:
        prompt: Any = {"prompt_token_ids": ids}
        params = _params(new, seed, self._ends, stop)
        async for output in self._llm.generate(prompt, params, f"{talk} {seed}"):
            found: Sequence[int] = output.outputs[0].token_ids
        return found


def serve(
    work: Sequence[Talks], model: Path, update: bool, connection: Any, make: Callable[[Path], Any]
) -> None:
    """Play all talks whenever the other end sends True, and send what each took; False ends."""
    del update  # the race's other sides have one
    asyncio.run(_serve(work, make(model), connection))


async def _serve(work: Sequence[Talks], side: Any, connection: Any) -> None:
    await side.start()
    connection.send("ready")
    rounds = 0
    while connection.recv():
        # New ids every time, so that nothing is known from before.
        connection.send([await _play(talks, rounds, side) for talks in work])
        rounds += 1
    await side.close()


async def _play(talks: Talks, seed: int, side: Any) -> Played:
    script = talks.script(seed)
    watch = Stopwatch()
    sampled = await side.play(script, talks.stop)
    return Played(watch.lap(), sum(len(ids) for turns in script for ids, _ in turns), sampled)


async def _converse(script: Script, ask: Ask) -> int:
    """Let all talks go on side by side and return how many tokens were sampled."""

    async def converse(talk: int) -> int:
        history: list[int] = []
        sampled = 0
        for turn, (ids, new) in enumerate(script[talk]):
            history += ids
            new_ids = await ask(list(history), new, _seed(talk, turn), talk)
            sampled += len(new_ids)
            history += new_ids
        return sampled

    return sum(await asyncio.gather(*map(converse, range(len(script)))))


def _seed(talk: int, turn: int) -> int:
    return 1000 * talk + turn


def _setup(model: Path, threads: int) -> Any:
    """Return what agentrl would start vLLM with."""
    from agentrl_vllm.model import describe
    from agentrl_vllm.starting import make_setup

    os.environ |= {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    setup = make_setup(VLLMEngine.Config(), model, describe(model), Resources(threads=threads))
    return replace(setup, arguments={**setup.arguments, "skip_tokenizer_init": False})


def _params(new: int, seed: int, ends: list[int], stop: tuple[str, ...]) -> Any:
    import msgspec

    from agentrl_vllm.backend import sampling_params

    params = sampling_params(Sampling(max_tokens=new, seed=seed), ends, every_token=False)
    return msgspec.structs.replace(params, stop=list(stop), detokenize=True) if stop else params
