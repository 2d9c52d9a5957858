"""An engine to which every token of its vocabulary is equally likely.

It says what chance achieves (`agentrl eval --env ENV --engine NAME`), and shows all that an engine owes: ids
in, ids out, the log-probability of each, stop strings, limits, seeds, and the version of the weights.
"""

import asyncio
import math
import random
from collections.abc import Sequence
from pathlib import Path

from agentrl import Completion, Engine, PluginConfig, Sampling
from agentrl.interfaces import Resources, Weights
from agentrl.testing import ByteTokenizer
from pydantic import Field

__all__ = ["MyEngine"]


class MyEngine(Engine):
    """Say anything, with equal probability."""

    class Config(PluginConfig):
        """Options: `--set engine.letters=ab` sets one, and a misspelt one is refused."""

        letters: str = Field(
            default="abcdefghijklmnopqrstuvwxyz <>/", min_length=1, description="what there is to say"
        )
        context_length: int = Field(default=16384, ge=2, description="of prompt and completion, tokens")

    config: Config

    async def start(self, model: Path | str, resources: Resources) -> None:
        """Load the model, and its tokenizer: here a token is a byte, whatever the model."""
        self.tokenizer = ByteTokenizer()
        self.context_length = self.config.context_length
        self.version = 0
        end = self.tokenizer.specials["<|end|>"]
        self.vocabulary = sorted({*self.tokenizer.encode(self.config.letters), end})

    async def generate(self, token_ids: Sequence[int], sampling: Sampling, session: str) -> Completion:
        """Draw tokens, as the seed of this request wills it, whatever else the engine is doing."""
        chance = random.Random(sampling.seed)
        drawn: list[int] = []
        while not self._is_over(drawn, sampling):
            await asyncio.sleep(0)  # others get their turn, and a request can be cancelled
            likeliest = self.vocabulary[0]
            drawn.append(chance.choice(self.vocabulary) if sampling.temperature else likeliest)
        logprobs = [-math.log(len(self.vocabulary))] * len(drawn)
        stopped = self._has_stopped(drawn, sampling)
        temperature = sampling.temperature or 1.0
        return Completion(drawn, logprobs, "stop" if stopped else "length", self.version, temperature)

    def _is_over(self, drawn: list[int], sampling: Sampling) -> bool:
        return len(drawn) >= sampling.max_tokens or self._has_stopped(drawn, sampling)

    def _has_stopped(self, drawn: list[int], sampling: Sampling) -> bool:
        """Return whether the turn has ended: by its token, or by a stop string, which both stay in it."""
        if drawn[-1:] == [self.tokenizer.eos_token_id]:
            return True
        text = self.tokenizer.decode(drawn)
        return any(mark in text for mark in sampling.stop)

    async def load_weights(self, weights: Weights, version: int) -> None:
        """Generate with these weights from now on, and say so in every completion."""
        self.version = version
