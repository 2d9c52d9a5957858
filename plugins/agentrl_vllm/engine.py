"""The engine plugin: what is asked of `Engine`, said to one vLLM or several.

How its rooms fit together: `model` reads what a model is made of, `starting` decides what vLLM is started
with; `host` keeps one vLLM alive, `correspondence` carries questions and answers, `links` leads to a thread
or a process. There `working` keeps vLLM busy, and `backend` and `inside` are all that knows vLLM.
`handover` is how weights get there; `routing` is for several vLLMs.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from agentrl.errors import AgentRLError
from agentrl.footprint import Footprint, Workload
from agentrl.interfaces import AdaptedWeights, Crew, Engine, PluginConfig, Resources, Weights
from agentrl.plugins import make
from agentrl.runtime import Peer, Program, Runtime
from agentrl.together import in_thread
from agentrl.types import Completion, Sampling
from agentrl_vllm.correspondence import Correspondence
from agentrl_vllm.handover import Handover
from agentrl_vllm.host import Host
from agentrl_vllm.links import ProcessLink, ThreadLink
from agentrl_vllm.messages import InFlight, Setup
from agentrl_vllm.model import check_prompt, describe
from agentrl_vllm.routing import Routes
from agentrl_vllm.starting import LORA_RANKS, choose_context, choose_dtype, gpus_of, make_program, make_setup

# Arguments of vLLM by which it loads something else than the model's files say.
_OTHER_WEIGHTS = {"load_format", "model_weights", "revision"}


class VLLMEngine(Engine):
    """Generates with vLLM, in this process or in processes of its own.

    What was read is kept in blocks by vLLM's prefix cache; requests that begin after weights were loaded get
    nothing that was read with others. Weights are loaded when the requests in work are done, and later ones
    wait, so that every completion is of one version. Where `in_flight` is not "wait" they are loaded at once,
    and the requests in work go on with them.
    """

    class Config(PluginConfig):
        """Options.

        Attributes:
            engines: vLLMs in processes of their own, one of which serves an episode to its end; 0 is one in
                this process, which starts faster.
            dtype: of weights, activations and cache; "auto" is float32 on the CPU and bfloat16 on CUDA.
            context_length: in tokens; None is all that the model has.
            kv_cache_gb: memory for keys and values; None is 1 on the CPU, on CUDA what `gpu_memory` leaves.
            gpu_memory: the share of a GPU's memory that vLLM may use.
            max_batch: how many requests one vLLM works on together.
            eager: whether vLLM leaves out compilation and CUDA graphs; None does so on the CPU.
            threads: of one vLLM on the CPU; None is those of the run, and one for a small model.
            in_flight: what requests in work do when weights come, as they can with `staleness`. "wait": the
                weights wait for them. "recompute": they read again all they have, and go on with the new
                weights. "keep": they go on with the new weights and the keys and values of the old ones.
            lora_rank: of the largest adapter (`trainer.lora.rank`) that is loaded beside the model. The model
                stays as it is, so little is handed over and nothing is rounded; vLLM computes a little
                slower. None has adapters merged into all weights.
            restarts: how often a vLLM that fails may be started again between two loads of weights.
            arguments: more of vLLM's `EngineArgs`.
        """

        engines: int = Field(default=0, ge=0)
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
        context_length: int | None = Field(default=None, ge=1)
        kv_cache_gb: float | None = Field(default=None, gt=0)
        gpu_memory: float = Field(default=0.5, gt=0, le=1)
        max_batch: int = Field(default=256, ge=1)
        eager: bool | None = None
        threads: int | None = Field(default=None, ge=1)
        in_flight: InFlight = "wait"
        lora_rank: int | None = Field(default=None, ge=1, le=LORA_RANKS[-1])
        restarts: int = Field(default=2, ge=0)
        arguments: dict[str, Any] = {}

    def __init__(self, config: Any = None) -> None:
        """Take a `Config`; None means all defaults."""
        super().__init__(config)
        self._hosts: list[Host] = []
        self._routes = Routes(0)
        self._handover: Handover | None = None

    @property
    def crew(self) -> Crew:
        """Return the vLLMs in processes of their own."""
        return Crew(self.config.engines, gpus_of(self.config.arguments))

    def footprint(self, model: Path | str, resources: Resources, work: Workload) -> Footprint:
        """Return what it takes of memory, from the model's config alone."""
        from agentrl_vllm.footprint import of_engine

        return of_engine(self.config, model, resources, work)

    async def start(self, model: Path | str, resources: Resources) -> None:
        """Load the model into every vLLM."""
        described = await asyncio.to_thread(describe, model)
        self.tokenizer = described.tokenizer
        self.context_length = choose_context(self.config.context_length, described)
        dtype = choose_dtype(self.config.dtype, resources.device)
        base = None if _OTHER_WEIGHTS & self.config.arguments.keys() else str(model)
        self._handover = Handover(described, base, dtype, as_files=self.config.engines > 0)
        setup = make_setup(self.config, model, described, resources)
        self._hosts = [Host(begin, self.config.restarts) for begin in self._begins(setup, resources)]
        self._routes = Routes(len(self._hosts))
        try:
            await asyncio.gather(*(host.start() for host in self._hosts))
        except BaseException:
            await self.close()
            raise

    async def generate(self, token_ids: Sequence[int], sampling: Sampling, session: str) -> Completion:
        """Continue `token_ids`; see `Engine.generate`.

        Raises:
            UsageError: there is nothing to continue, or no room in the context.
        """
        vocabulary = self._running().model.vocabulary
        check_prompt(token_ids, sampling.max_tokens, vocabulary, self.context_length)
        return await self._hosts[self._routes.of(session)].ask(token_ids, sampling)

    def release(self, session: str) -> None:
        """Forget where `session` is served; its cached blocks go when others need the room."""
        self._routes.forget(session)

    async def load_weights(self, weights: Weights, version: int) -> None:
        """Load the weights: when the requests in work are done, or at once; see `in_flight`.

        Raises:
            AgentRLError: names or shapes are not the model's; then nothing has been loaded.
        """
        handover, rank = self._running(), self.config.lora_rank
        if rank is not None and isinstance(weights, AdaptedWeights):
            adapted = weights
            cargo, whole = await in_thread(lambda: handover.pack_adapter(adapted, version, rank))
        else:
            cargo, whole = await in_thread(lambda: handover.pack(weights, version))
        await asyncio.gather(*(host.load(cargo, whole) for host in self._hosts))
        handover.arrived(cargo, whole)

    async def sleep(self) -> None:
        """Give the memory of a GPU back while the trainer works; nothing happens on the CPU."""
        self._running()
        await asyncio.gather(*(host.rest(asleep=True) for host in self._hosts))

    async def wake(self) -> None:
        """Take the memory again."""
        self._running()
        await asyncio.gather(*(host.rest(asleep=False) for host in self._hosts))

    async def close(self) -> None:
        """Release everything; requests still in work fail."""
        hosts, self._hosts = self._hosts, []
        await asyncio.gather(*(host.close() for host in hosts))
        if self._handover is not None:
            self._handover.close()

    def _begins(self, setup: Setup, resources: Resources) -> list[Callable[[], Correspondence]]:
        """Return how to start each vLLM."""
        if not self.config.engines:
            return [lambda: Correspondence(partial(ThreadLink, setup, self.tokenizer))]
        runtime = resources.runtime or make("runtime", "local")
        programs = [make_program(setup, resources.device, index) for index in range(self.config.engines)]
        launches = [partial(_launch, runtime, program) for program in programs]
        return [partial(Correspondence, partial(ProcessLink, setup, launch)) for launch in launches]

    def _running(self) -> Handover:
        if self._handover is None or not self._hosts:
            raise AgentRLError("the engine is not running: start it first, and do not use it after close")
        return self._handover


def _launch(runtime: Runtime, program: Program) -> Peer:
    """Start one process."""
    (peer,) = runtime.launch([program])
    return peer
