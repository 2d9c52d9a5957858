r"""How close the answer's meaning is to a right one, by a small embedding model on this machine.

    agentrl run --env deepsearch --reward exact_match --reward similarity:0 \
        --set rewards.similarity.model=sentence-transformers/all-MiniLM-L6-v2

A metric to watch rather than a reward to learn from: a wrong name of the right kind is close to the right
one.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from agentrl.errors import AgentRLError
from agentrl.interfaces import PluginConfig, Reward
from agentrl.types import Trajectory

if TYPE_CHECKING:
    from agentrl_similarity.embedding import Embedder


class Similarity(Reward):
    """Cosine of the embeddings of answer and reference, 0 to 1; of several references the closest counts."""

    class Config(PluginConfig):
        """Options."""

        model: str = Field(description="an embedding model for transformers: a folder, or a hub name")
        pooling: str = Field(
            default="mean", pattern="^(mean|first|last)$", description="of the tokens: mean, first or last"
        )
        prefix: str = Field(default="", description="what some models want before a text, such as 'query: '")
        floor: float = Field(
            default=0.0,
            ge=0,
            lt=1,
            description="the cosine that counts 0: many models give texts that have nothing in common .7",
        )
        longest: int = Field(default=256, ge=1, description="tokens of a text that count")
        device: str = Field(default="cpu", description="where the model is: cpu, cuda or cuda:N")

    needs_references = True
    checked_with: ClassVar = {"needs_torch": True}
    config: Config
    _embedder: "Embedder | None" = None
    _thread: ThreadPoolExecutor | None = None

    async def start(self, folder: Path | None) -> None:
        """Load the model.

        Raises:
            UsageError: it cannot be loaded, or torch and transformers are not installed.
        """
        from agentrl_similarity.embedding import load

        # One thread of its own: the model works beside the episodes, on one text after the other.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="agentrl-similarity")
        running = asyncio.get_running_loop()
        self._embedder = await running.run_in_executor(self._thread, load, self.config)

    async def score(self, trajectory: Trajectory) -> float:
        """Return the similarity, 0 without an answer or a reference."""
        outcome = trajectory.outcome
        answer = (outcome.answer or "").strip() if outcome else ""
        references = [each for each in outcome.references if each.strip()] if outcome else []
        if not answer or not references:
            return 0.0
        if self._embedder is None or self._thread is None:
            raise AgentRLError("the reward has not been started: call `start` first, and `close` at the end")
        running = asyncio.get_running_loop()
        closest = await running.run_in_executor(self._thread, self._embedder.closest, answer, references)
        return max(0.0, min(1.0, (closest - self.config.floor) / (1 - self.config.floor)))

    async def close(self) -> None:
        """Let go of the model."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
        self._thread = self._embedder = None
