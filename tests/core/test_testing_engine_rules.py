"""The conformance kit for engines."""

import asyncio
import contextlib
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from agentrl import Completion, Engine, Sampling
from agentrl.interfaces import Resources, Weights
from agentrl.testing import ByteTokenizer, RulesBroken, check_engine

LETTERS = [ord(letter) for letter in "abcdefgh "]


class Dice(Engine):
    """Every letter is equally likely."""

    version = 0

    async def start(self, model: Path | str, resources: Resources) -> None:
        self.tokenizer = ByteTokenizer()
        self.context_length = 4096

    async def generate(self, token_ids: Sequence[int], sampling: Sampling, session: str) -> Completion:
        dice = random.Random(sampling.seed)
        drawn: list[int] = []
        stopped = False
        while len(drawn) < sampling.max_tokens and not stopped:
            await asyncio.sleep(0)
            drawn.append(self.draw(dice))
            stopped = any(mark in self.tokenizer.decode(drawn) for mark in sampling.stop)
        logprobs = [-math.log(len(LETTERS))] * len(drawn)
        return Completion(drawn, logprobs, "stop" if stopped else "length", self.version)

    def draw(self, dice: random.Random) -> int:
        return dice.choice(LETTERS)

    async def load_weights(self, weights: Weights, version: int) -> None:
        self.version = version


class NoWeights:
    def items(self) -> list[Any]:
        return []


class HasNoTokenizer(Dice):
    async def start(self, model: Path | str, resources: Resources) -> None:
        self.context_length = 4096


class ReturnsText(Dice):
    async def generate(self, token_ids: Sequence[int], sampling: Sampling, session: str) -> Completion:
        return cast(Completion, "abc")


class SaysTooMuch(Dice):
    async def generate(self, token_ids: Sequence[int], sampling: Sampling, session: str) -> Completion:
        ids = [*LETTERS] * 4
        return Completion(ids, [-1.0] * len(ids), "length")


class ReturnsProbabilities(Dice):
    async def generate(self, token_ids: Sequence[int], sampling: Sampling, session: str) -> Completion:
        done = await super().generate(token_ids, sampling, session)
        return Completion(done.token_ids, [math.exp(x) for x in done.logprobs], done.stop)


class ForgetsALogprob(Dice):
    async def generate(self, token_ids: Sequence[int], sampling: Sampling, session: str) -> Completion:
        done = await super().generate(token_ids, sampling, session)
        return Completion(done.token_ids, done.logprobs[1:], done.stop)


class SharesItsDice(Dice):
    shared = random.Random(0)

    def draw(self, dice: random.Random) -> int:
        return super().draw(self.shared)


class IgnoresSeeds(Dice):
    def draw(self, dice: random.Random) -> int:
        return LETTERS[0]


class CutsStopsOff(Dice):
    async def generate(self, token_ids: Sequence[int], sampling: Sampling, session: str) -> Completion:
        done = await super().generate(token_ids, sampling, session)
        cut = len(done.token_ids) - (done.stop == "stop")
        return Completion(done.token_ids[:cut], done.logprobs[:cut], done.stop)


class IgnoresStops(Dice):
    async def generate(self, token_ids: Sequence[int], sampling: Sampling, session: str) -> Completion:
        return await super().generate(
            token_ids, Sampling(1.0, 1.0, sampling.max_tokens, (), sampling.seed), session
        )


class WillNotBeCancelled(Dice):
    async def generate(self, token_ids: Sequence[int], sampling: Sampling, session: str) -> Completion:
        if sampling.max_tokens == 200:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(600)
            await asyncio.sleep(600)
        return await super().generate(token_ids, sampling, session)


class KnowsItsSessions(Dice):
    def release(self, session: str) -> None:
        raise KeyError(session)


class SleepsForGood(Dice):
    asleep = 0

    async def sleep(self) -> None:
        self.asleep = 1

    def draw(self, dice: random.Random) -> int:
        return super().draw(dice) + self.asleep


class ClosesOnce(Dice):
    closed = False

    async def close(self) -> None:
        if self.closed:
            raise RuntimeError("already closed")
        self.closed = True


class ForgetsItsVersion(Dice):
    async def load_weights(self, weights: Weights, version: int) -> None:
        pass


def test_a_good_engine_passes() -> None:
    check_engine(Dice, model="", weights=NoWeights())


@pytest.mark.parametrize(
    ("engine", "rule", "remedy"),
    [
        (HasNoTokenizer, "is ready when it has started: .* it has no tokenizer", "set both in start"),
        (ReturnsText, "returns completions: generate returned a str", "return an agentrl.Completion"),
        (
            SaysTooMuch,
            "returns completions: 36 ids, .* where 24 tokens were allowed",
            "no more than max_tokens",
        ),
        (ReturnsProbabilities, "returns completions: the log-probabilities of 24 tokens are", "in nats"),
        (
            ForgetsALogprob,
            "returns completions: the log-probabilities of 24 tokens are",
            "each token its own",
        ),
        (SharesItsDice, "repeats itself: the same seed gave", "a generator of its own"),
        (IgnoresSeeds, "repeats itself: 6 seeds gave the same 24 tokens", "let sampling.seed decide"),
        (CutsStopsOff, "stops where it is told: with stop=", "keep it"),
        (IgnoresStops, "stops where it is told: with stop=.* 24 came", "end with the token that completes"),
        (WillNotBeCancelled, "lets requests be cancelled: generate went on", "let CancelledError through"),
        (KnowsItsSessions, r"raises nothing: release\('gone'\) raised KeyError", "if it is known at all"),
        (SleepsForGood, "sleeps and closes in peace: after sleep and wake", "wake with the weights"),
        (ClosesOnce, "raises nothing: close raised RuntimeError", "let close work twice"),
        (ForgetsItsVersion, "loads weights: .* is of version 0", "the version of the weights"),
    ],
)
def test_a_bad_engine_is_told_what_is_wrong(engine: type[Engine], rule: str, remedy: str) -> None:
    with pytest.raises(RulesBroken, match=f"{rule}.*; .*{remedy}"):
        check_engine(
            engine, model="", weights=NoWeights(), seconds=0.3 if engine is WillNotBeCancelled else 30
        )
