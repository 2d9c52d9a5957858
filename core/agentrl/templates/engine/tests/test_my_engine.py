"""The engine keeps the rules of engines, and is as it says."""

import asyncio
import math

from agentrl import Completion, Sampling
from agentrl.interfaces import Resources
from agentrl.testing import check_engine

from agentrl_my_engine import MyEngine


def test_it_keeps_the_rules_of_engines() -> None:
    """Let it generate alone and in company, with seeds, limits and stop strings."""
    check_engine(MyEngine)


def test_all_of_the_vocabulary_is_equally_likely() -> None:
    """Draw from two letters and the end of the turn."""
    config = MyEngine.Config(letters="ab")

    async def draw() -> Completion:
        engine = MyEngine(config)
        await engine.start("", Resources())
        return await engine.generate([1, 2, 3], Sampling(max_tokens=50, seed=5), "session")

    completion = asyncio.run(draw())
    assert completion.logprobs == [-math.log(3)] * len(completion.token_ids)
