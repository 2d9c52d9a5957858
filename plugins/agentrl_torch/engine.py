"""The engine for one process: generates with the plain transformers model, batching whoever waits.

How its rooms fit together: `scheduling` collects requests on the event loop and hands them to one thread;
there `generation` decides what each forward computes, `sessions` what is kept, `packing` lays the tokens out,
`cached_attention` is what the model calls, `sampling` draws the new tokens.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from agentrl.errors import AgentRLError, UsageError
from agentrl.footprint import Footprint, Workload
from agentrl.interfaces import Engine, PluginConfig, Resources, Weights
from agentrl.stopping import StopRule
from agentrl.types import Completion, Sampling
from agentrl_torch import memory
from agentrl_torch.fitting import fit
from agentrl_torch.footprint import ENGINE_REMEDIES
from agentrl_torch.generation import Generator
from agentrl_torch.kv_cache import Tails
from agentrl_torch.loading import DtypeName, choose_dtype, load_model, load_tokenizer
from agentrl_torch.scheduling import Scheduler
from agentrl_torch.sequences import Request
from agentrl_torch.sessions import SessionStore
from agentrl_torch.weights import load_into


class TorchEngine(Engine):
    """Generates with any causal language model of transformers, in this process.

    What a session has read is kept, so a turn costs its new tokens only, and what sessions begin with alike
    is computed and stored once. Weights are loaded when the requests in work are done; later ones wait, so
    that every completion is of one version.
    """

    class Config(PluginConfig):
        """Options.

        Attributes:
            dtype: of weights, activations and cache; "auto" is float32 on the CPU and bfloat16 on CUDA.
            max_batch: how many requests are worked on together.
            max_prefill: how many given tokens are read in one forward.
            min_shared_prefix: the shortest common beginning, in tokens, that is stored once.
            kv_cache_tokens: over this many kept tokens idle sessions are forgotten, to be read again later.
        """

        dtype: DtypeName = "auto"
        max_batch: int = Field(default=256, ge=1)
        max_prefill: int = Field(default=2048, ge=1)
        min_shared_prefix: int = Field(default=64, ge=1)
        kv_cache_tokens: int = Field(default=262_144, ge=1)

    def __init__(self, config: Any = None) -> None:
        """Take a `Config`; None means all defaults."""
        super().__init__(config)
        self._scheduler: Scheduler | None = None
        self._generator: Generator | None = None

    def footprint(self, model: Path | str, resources: Resources, work: Workload) -> Footprint:
        """Return what it takes of memory, from the model's config alone."""
        from agentrl_torch.footprint import of_engine

        return of_engine(self.config, model, resources, work)

    async def start(self, model: Path | str, resources: Resources) -> None:
        """Load the model, and try out that it runs on the engine's cache."""
        # Torch keeps the number of threads per thread, so it is set in the one that computes.
        executor = ThreadPoolExecutor(1, "torch-engine", torch.set_num_threads, (resources.threads,))
        loop = asyncio.get_running_loop()
        try:
            self._generator = await loop.run_in_executor(executor, self._load, model, resources.device)
        except BaseException:
            executor.shutdown(wait=False)
            raise
        self._scheduler = Scheduler(self._generator, executor)

    async def generate(self, token_ids: Sequence[int], sampling: Sampling, session: str) -> Completion:
        """Continue `token_ids`; see `Engine.generate`.

        Raises:
            UsageError: there is nothing to continue, or no room in the context.
        """
        scheduler = self._running()
        self._check(token_ids, sampling)
        request = Request(list(token_ids), sampling, session)
        await scheduler.submit(request)
        stop: Literal["stop", "length"] = "stop" if request.stopped else "length"
        # The likeliest token is drawn from no distribution.
        temperature = request.sampling.temperature or 1.0
        return Completion(request.sampled, request.logprobs, stop, request.version, temperature)

    def release(self, session: str) -> None:
        """Forget what is kept for `session`."""
        if self._scheduler is not None:
            self._scheduler.release(session)

    async def load_weights(self, weights: Weights, version: int) -> None:
        """Copy the weights once the requests in work are done, and forget all that was read before.

        Raises:
            AgentRLError: names or shapes are not the model's; then nothing has been loaded.
        """
        await self._running().run_alone(lambda: self._load_weights(weights, version))

    async def try_room(self, tokens: int, episodes: int) -> None:
        """Hold keys and values of so many episodes, and read one of them; then be as before."""
        running, kept = self._running(), self._loaded().store
        with memory.told("the keys and values of all episodes", ENGINE_REMEDIES):
            held: list[Tails] = []
            try:
                await running.run_alone(lambda: held.append(self._make_room(tokens, episodes)))
                await super().try_room(tokens, episodes)
            finally:
                held.clear()
                await running.run_alone(lambda: setattr(self._loaded(), "store", kept))

    def _make_room(self, tokens: int, episodes: int) -> Tails:
        """Begin a new store, and return storage for all episodes."""
        generator, config = self._loaded(), self.config
        spec = generator.store.tails.spec
        generator.store = SessionStore(spec, config.min_shared_prefix, config.kv_cache_tokens)
        # Those that wait for a row are kept up to the budget only.
        kept = max(config.max_batch, config.kv_cache_tokens // tokens)
        return Tails.holding(spec, min(episodes, kept), tokens)

    async def sleep(self) -> None:
        """Forget all sessions and give their memory back."""
        await self._running().run_alone(lambda: self._loaded().reset())

    async def close(self) -> None:
        """Release everything; requests still in work fail."""
        scheduler, self._scheduler, self._generator = self._scheduler, None, None
        if scheduler is not None:
            await scheduler.close()

    def _load(self, path: Path | str, device: str) -> Generator:
        dtype = choose_dtype(self.config.dtype, device)
        model = load_model(path, dtype, device).requires_grad_(False)
        tokenizer = self.tokenizer = load_tokenizer(path)
        config = self.config
        store = SessionStore(fit(model), config.min_shared_prefix, config.kv_cache_tokens)
        stop_rule = StopRule(self.tokenizer, _end_ids(model, self.tokenizer.eos_token_id))
        self.context_length = _context_length(model, tokenizer)
        self._vocabulary = int(model.config.get_text_config().vocab_size)
        return Generator(model, store, stop_rule, config.max_batch, config.max_prefill)

    def _load_weights(self, weights: Weights, version: int) -> None:
        generator = self._loaded()
        load_into(generator.model, weights)
        generator.store.clear()
        generator.version = version

    def _check(self, token_ids: Sequence[int], sampling: Sampling) -> None:
        if not token_ids or sampling.max_tokens < 1:
            raise UsageError("the engine was asked to continue no tokens, or by no tokens")
        if not 0 <= min(token_ids) <= max(token_ids) < self._vocabulary:
            raise UsageError(
                f"the prompt has token {max(token_ids)}, but the model's vocabulary ends at "
                f"{self._vocabulary - 1}; use the tokenizer that belongs to the model"
            )
        if len(token_ids) + sampling.max_tokens > self.context_length:
            raise UsageError(
                f"{len(token_ids)} tokens and up to {sampling.max_tokens} more do not fit into the model's "
                f"context of {self.context_length}; ask for fewer"
            )

    def _running(self) -> Scheduler:
        if self._scheduler is None:
            raise AgentRLError("the engine is not running: start it first, and do not use it after close")
        return self._scheduler

    def _loaded(self) -> Generator:
        if self._generator is None:
            raise AgentRLError("the engine was closed")
        return self._generator


def _context_length(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return how many tokens the model can look back over; some know no limit of their own."""
    own = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(own or tokenizer.model_max_length)


def _end_ids(model: PreTrainedModel, tokenizer_end: int | None) -> set[int]:
    """Return the ids that end a turn: the tokenizer's own and those of the model's generation config."""
    ends = model.generation_config.eos_token_id if model.generation_config is not None else None
    found = {ends} if isinstance(ends, int) else set(ends or ())
    return found if tokenizer_end is None else found | {tokenizer_end}
