"""The rules of engines."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from agentrl.chat import ChatFormat
from agentrl.interfaces import Engine, Resources, Weights
from agentrl.testing.rules import Report, RuleBroken, RuleSkipped, in_time, judge_by, name_of, no_exception
from agentrl.types import Completion, Message, Sampling

QUESTIONS = ("What is the capital of France?", "Where is the key?", "\U0001f40d </search> {")
SAMPLING = Sampling(max_tokens=24, seed=5)
# How many more completions a request is kept company by.
COMPANY = 6
# Nats by which a log-probability may be above 0, or differ between two runs: floating-point sums do.
TOLERANCE = 1e-3


def check_engine(
    make: Callable[[], Engine],
    model: Path | str = "tiny",
    weights: Weights | None = None,
    seconds: float = 120.0,
    report: Report | None = None,
) -> None:
    """Hold an engine to the rules of its kind.

    Args:
        make: the class, or a function that returns an instance with the options to test.
        model: what it is started with: a folder, a hub name or the name of a model plugin.
        weights: of the same model, to be loaded once; None leaves that out.
        seconds: that starting, or one completion, may take.
        report: told of each rule, as soon as it was tried.

    Raises:
        RulesBroken: with all rules that it breaks.
    """
    __tracebackhide__ = True
    subject = EngineUnderTest(make, _path(model), weights, seconds)
    judge_by(RULES, subject, name_of(make), report)


def _path(model: Path | str) -> Path | str:
    from agentrl.plugins import make, names

    return make("model", str(model)).path() if str(model) in names("model") else model


@dataclass(frozen=True, slots=True)
class EngineUnderTest:
    """Starts engines and lets them generate, holding each completion to what every completion owes."""

    make: Callable[[], Engine]
    model: Path | str
    weights: Weights | None
    seconds: float

    @asynccontextmanager
    async def engine(self) -> AsyncIterator[Engine]:
        """Start a fresh engine for a block."""
        with no_exception(
            "making the engine", "let it be made without options, or check a function that does"
        ):
            engine = self.make()
        try:
            with no_exception("start", "load the model you are given, and set tokenizer and context_length"):
                await in_time(engine.start(self.model, Resources()), self.seconds, "start")
                self._check_started(engine)
            yield engine
        finally:
            with suppress(Exception):  # a rule of its own holds it to closing well
                await asyncio.wait_for(engine.close(), self.seconds)

    @staticmethod
    def _check_started(engine: Engine) -> None:
        length: object = getattr(engine, "context_length", None)
        if not isinstance(length, int) or length < 1 or not hasattr(engine, "tokenizer"):
            found = f"after start its context_length is {length!r}, and it has " + (
                "a tokenizer" if hasattr(engine, "tokenizer") else "no tokenizer"
            )
            raise RuleBroken("is ready when it has started", found, "set both in start")

    def prompt(self, engine: Engine, place: int = 0) -> list[int]:
        """Return the ids of a question."""
        with no_exception("writing a chat", "set a tokenizer with a chat template"):
            return ChatFormat(engine.tokenizer).opening([Message("user", QUESTIONS[place])])

    async def ask(
        self, engine: Engine, prompt: Sequence[int], sampling: Sampling, session: str
    ) -> Completion:
        """Return a completion, held to shape."""
        what = f"generate with {sampling}"
        with no_exception(what, "continue any ids, as sampling says"):
            answer: Any = await in_time(
                engine.generate(list(prompt), sampling, session), self.seconds, "generate"
            )
        _check_completion(answer, sampling)
        completion: Completion = answer
        return completion


def _check_completion(answer: Any, sampling: Sampling) -> None:
    if not isinstance(answer, Completion):
        found = f"generate returned a {type(answer).__name__}"
        raise RuleBroken("returns completions", found, "return an agentrl.Completion")
    ids, logprobs = answer.token_ids, answer.logprobs
    if not 1 <= len(ids) <= sampling.max_tokens or not all(type(each) is int and each >= 0 for each in ids):
        found = f"{len(ids)} ids, {ids[:8]}, where {sampling.max_tokens} tokens were allowed"
        raise RuleBroken("returns completions", found, "return at least one id, and no more than max_tokens")
    if len(logprobs) != len(ids) or not all(math.isfinite(x) and x <= TOLERANCE for x in logprobs):
        found = f"the log-probabilities of {len(ids)} tokens are {logprobs[:8]}"
        raise RuleBroken("returns completions", found, "give each token its own, in nats: at most 0, finite")
    if answer.stop not in ("stop", "length") or (answer.stop == "length" and len(ids) < sampling.max_tokens):
        found = f"stop={answer.stop!r} after {len(ids)} of {sampling.max_tokens} tokens"
        raise RuleBroken("returns completions", found, 'say "length" if tokens ran out, else "stop"')


async def generates_what_is_asked(subject: EngineUnderTest) -> None:
    """Completions are well-formed, also of a single token, at temperature 0, and in a second turn."""
    async with subject.engine() as engine:
        for place in range(len(QUESTIONS)):
            prompt = subject.prompt(engine, place)
            for sampling in (SAMPLING, replace(SAMPLING, max_tokens=1), replace(SAMPLING, temperature=0.0)):
                await subject.ask(engine, prompt, sampling, f"session {place}")
        said = await subject.ask(engine, prompt, SAMPLING, "session")
        chat = ChatFormat(engine.tokenizer)
        more = chat.continuation([Message("user", "And then?")], said.token_ids[-1])
        await subject.ask(engine, [*prompt, *said.token_ids, *more], SAMPLING, "session")


async def repeats_itself(subject: EngineUnderTest) -> None:
    """The same ids and seed give the same tokens, alone and in company; other seeds give others."""
    async with subject.engine() as engine:
        prompt = subject.prompt(engine)
        # Warm, or a model that is sure of its first token says the same whatever the seed.
        seeds = [replace(SAMPLING, temperature=2.0, seed=SAMPLING.seed + place) for place in range(COMPANY)]
        alone = [await subject.ask(engine, prompt, each, f"alone {each.seed}") for each in seeds]
        others = (subject.ask(engine, prompt, each, f"together {each.seed}") for each in seeds)
        together = await asyncio.gather(*others)
    for one, other in zip(alone, together, strict=True):
        if one.token_ids != other.token_ids or not _close(one.logprobs, other.logprobs):
            raise RuleBroken(
                "repeats itself",
                f"the same seed gave {one.token_ids[:6]}... alone and {other.token_ids[:6]}... in company",
                "draw a request's tokens from a generator of its own, seeded by sampling.seed",
            )
    if len({tuple(each.token_ids) for each in alone}) == 1:
        found = f"{COMPANY} seeds gave the same {len(alone[0].token_ids)} tokens at temperature 2"
        raise RuleBroken("repeats itself", found, "let sampling.seed decide what is drawn")


def _close(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(abs(x - y) <= TOLERANCE for x, y in zip(one, other, strict=True))


async def stops_where_it_is_told(subject: EngineUnderTest) -> None:
    """A stop string ends the turn with the token that completes it, and stays in the completion."""
    async with subject.engine() as engine:
        prompt = subject.prompt(engine)
        free = await subject.ask(engine, prompt, SAMPLING, "free")
        texts = [engine.tokenizer.decode(free.token_ids[: n + 1]) for n in range(len(free.token_ids))]
        mark = next((after.removeprefix(text) for text, after in pairwise(texts)), "")
        if not mark.strip():
            raise RuleSkipped("the model said nothing that could be stopped at")
        length = next(number for number, text in enumerate(texts, 1) if mark in text)
        stopped = await subject.ask(engine, prompt, replace(SAMPLING, stop=(mark,)), "stopped")
    if stopped.token_ids != free.token_ids[:length] or stopped.stop != "stop":
        raise RuleBroken(
            "stops where it is told",
            f"with stop={mark!r}, which the model says within {length} tokens, "
            f"{len(stopped.token_ids)} came, and stop={stopped.stop!r}",
            "end with the token that completes a stop string, keep it, and say stop",
        )


async def lets_requests_be_cancelled(subject: EngineUnderTest) -> None:
    """A request that is cancelled ends, its session can be forgotten, and the next one is answered."""
    async with subject.engine() as engine:
        prompt = subject.prompt(engine)
        expected = await subject.ask(engine, prompt, SAMPLING, "before")
        running = asyncio.ensure_future(engine.generate(prompt, replace(SAMPLING, max_tokens=200), "gone"))
        await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait({running}, timeout=subject.seconds)
        if not running.done():
            found = f"generate went on for {subject.seconds:g} s after it was cancelled"
            raise RuleBroken("lets requests be cancelled", found, "let CancelledError through")
        for session in ("gone", "before", "never seen"):
            with no_exception(f"release({session!r})", "forget a session, if it is known at all"):
                engine.release(session)
        after = await subject.ask(engine, prompt, SAMPLING, "after")
    if after.token_ids != expected.token_ids:
        found = "after a request was cancelled, the same seed gave other tokens"
        raise RuleBroken("lets requests be cancelled", found, "free what the request holds, and no more")


async def loads_weights(subject: EngineUnderTest) -> None:
    """A completion says which version of the weights it was sampled from."""
    if subject.weights is None:
        raise RuleSkipped("no weights were given: check_engine(..., weights=...)")
    async with subject.engine() as engine:
        with no_exception("load_weights", "take the parameters by the names of the model's state_dict"):
            await in_time(engine.load_weights(subject.weights, 7), subject.seconds, "load_weights")
        said = await subject.ask(engine, subject.prompt(engine), SAMPLING, "new")
    if said.version != 7:
        found = f"after load_weights(..., 7) a completion is of version {said.version}"
        raise RuleBroken("loads weights", found, "give completions the version of the weights")


async def sleeps_and_closes_in_peace(subject: EngineUnderTest) -> None:
    """It generates after sleep and wake, and can be closed twice."""
    async with subject.engine() as engine:
        before = await subject.ask(engine, subject.prompt(engine), SAMPLING, "before")
        with no_exception("sleep and wake", "give memory back and take it again, or do nothing"):
            await in_time(engine.sleep(), subject.seconds, "sleep")
            await in_time(engine.wake(), subject.seconds, "wake")
        after = await subject.ask(engine, subject.prompt(engine), SAMPLING, "after")
        for _ in range(2):
            with no_exception("close", "let close work twice"):
                await in_time(engine.close(), subject.seconds, "close")
    if before.token_ids != after.token_ids:
        found = "after sleep and wake the same seed gave other tokens"
        raise RuleBroken("sleeps and closes in peace", found, "wake with the weights it went to sleep with")


RULES = (
    generates_what_is_asked,
    repeats_itself,
    stops_where_it_is_told,
    lets_requests_be_cancelled,
    loads_weights,
    sleeps_and_closes_in_peace,
)
