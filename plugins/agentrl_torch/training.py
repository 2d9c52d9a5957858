"""The models of a run and how they learn, as one rank has them; with one rank, that is all there is.

Where there are several, every rank is told the same: it sees the whole batch and computes its share.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from agentrl.errors import UsageError
from agentrl.footprint import Rehearsal
from agentrl.interfaces import Algorithm, Resources
from agentrl.types import Credit, Need
from agentrl_torch import (
    adaptation,
    attention,
    checkpoint,
    choosing_attention,
    kernels,
    loading,
    memory,
    rehearsal,
)
from agentrl_torch.audit import THRESHOLDS, Audit
from agentrl_torch.config import TorchConfig
from agentrl_torch.critic import Critic, CriticConfig, explained_variance
from agentrl_torch.forward import Policy
from agentrl_torch.learner import Learner, Recipe
from agentrl_torch.learners import Learners, Pace
from agentrl_torch.lora import Adapter, MergedWeights
from agentrl_torch.metrics import Tally
from agentrl_torch.micro_batch import MicroBatch, unique_tokens
from agentrl_torch.sharding import Sharding
from agentrl_torch.update import Facts, Step, TrieBatch, compute_facts
from agentrl_torch.world import World

_log = logging.getLogger(__name__)


class Training:
    """Actor, critic and reference, and what is done with them."""

    def __init__(self, config: TorchConfig, sharding: Sharding, world: World) -> None:
        """Take the options, how models lie over ranks, and which rank this is."""
        self.config = config
        self._sharding = sharding
        self._world = world

    def start(self, model: Path | str, needs: frozenset[Need], steps: int, resources: Resources) -> None:
        """Load the actor, and what `needs` asks for; `steps` is the length of the schedule."""
        self._threads = resources.threads
        torch.set_num_threads(self._threads)
        self._source = model
        self._dtype = loading.choose_dtype(self.config.dtype, resources.device)
        lora = self.config.lora
        kept = self._dtype if lora.rank else torch.promote_types(self._dtype, torch.float32)
        self._sharding.begin(self._world, resources.device, kept)
        self.actor = self._sharding.load(model, widened=lora.rank is None)
        self._adapter = Adapter(self.actor, lora, resources.seed, str(model)) if lora.rank else None
        self.bytes = sum(weight.numel() for weight in self.actor.parameters()) * kept.itemsize
        if self.config.kernels == "fast":
            kernels.accelerate(self.actor)
        way = self._way_of_attention(resources.device)
        with self._sharding.computing(self.actor):
            adaptation.use_trie(self.actor, way, self._dtype)
        self._reference = self._make_reference() if "reference" in needs else None
        self.critic = self._make_critic() if "values" in needs else None
        if self.config.gradient_checkpointing:
            adaptation.keep_no_activations(self.actor)
            if self.critic and self.critic.backbone:
                adaptation.keep_no_activations(self.critic.backbone)
        self._learners = self._make_learners(steps)

    def _way_of_attention(self, device: str) -> str:
        """Return the fastest way that all ranks may take, and say what keeps GPUs from it."""
        if self.config.kernels == "plain":
            return attention.PLAIN
        way, obstacle = choosing_attention.choose(self.actor.config, self._dtype, device, self._world)
        if obstacle and self._world.first:
            _log.warning(
                "attention goes node by node, which is slow on a GPU: flex_attention cannot be used "
                f"({obstacle}); trainer.kernels=plain says that this is meant"
            )
        return way

    def _make_reference(self) -> Callable[[], AbstractContextManager[nn.Module]]:
        """Return what opens the model that was loaded: with LoRA, the actor without its adapter."""
        if self._adapter:
            return self._without_adapter
        policy = Policy(self._sharding.copied(self.actor).requires_grad_(False))
        network = self._sharding.frozen(policy, self._dtype)
        return lambda: nullcontext(network)

    @contextmanager
    def _without_adapter(self) -> Iterator[nn.Module]:
        assert self._adapter is not None
        with self._adapter.disabled():
            yield self._learners.actor.network

    def _make_critic(self) -> Critic:
        separate = self._critic_config.backbone == "separate"
        return Critic(self.actor, self._sharding.copied(self.actor) if separate else None)

    def _make_learners(self, steps: int) -> Learners:
        """Return the actor, and the critic if there is one, with new optimizers."""
        config, of_critic = self.config, self._critic_config
        actor = self._learner("actor", Policy(self.actor), self.actor, config.rate, config.max_grad_norm)
        critic = None
        if network := self.critic:
            rate = of_critic.rate(config.rate)
            critic = self._learner("critic", network, network, rate, of_critic.max_grad_norm)
        return Learners(actor, critic, Pace(config.schedule, steps, config.warmup_steps), of_critic)

    def _learner(
        self, name: str, network: nn.Module, module: nn.Module, rate: float, max_norm: float
    ) -> Learner:
        config = self.config
        recipe = Recipe(name, network, module, rate, max_norm, config.betas, config.weight_decay)
        return self._sharding.learner(recipe, self._dtype)

    @property
    def _critic_config(self) -> CriticConfig:
        return self.config.critic or CriticConfig()

    @memory.telling("what an update needs to know")
    def prepare(self, batch: TrieBatch, needs: frozenset[Need]) -> None:
        """Put into the batch what `needs` asks for.

        `logprobs` are there if they are needed, or had to be recomputed (see `TorchConfig.old_logprobs`).
        """
        # Torch keeps the number of threads per thread, and an update may come in another than the start did.
        torch.set_num_threads(self._threads)
        # In an update of one step the old log-probabilities are those that it computes anyway.
        several_steps = self.config.epochs * self.config.minibatches > 1
        if "logprobs" in needs or (several_steps and self.config.old_logprobs == "recompute"):
            audit = self._new_audit()
            batch.logprobs = self._logprobs(batch, self._learners.actor.network, audit)
            _, _, batch.audit = self._of_all_ranks([0.0], Tally(), audit)
        if "reference" in needs:
            with self._open_reference() as reference:
                batch.reference_logprobs = self._logprobs(batch, reference)
        if "values" in needs:
            batch.values = self._values(batch)

    @memory.telling("an update")
    def update(self, batch: TrieBatch, credits: list[list[Credit]], algorithm: Algorithm) -> dict[str, float]:
        """Train on the batch and return metrics: loss, gradient norm, learning rate, what `loss` logged.

        Raises:
            AgentRLError: engine and trainer disagree about a token, or a loss or gradient is not finite.
        """
        explained = None if batch.values is None else explained_variance(batch, credits)
        begun = self._learners.begin(explained)
        step = self.step(batch, credits, algorithm)
        tally, audit = Tally(), self._new_audit()
        moving = self._learners.moving(with_critic=step.critic is not None)
        losses, norms = [], []
        for index, rows in enumerate(batch.minibatches * self.config.epochs):
            # After the first step the weights are no longer those that sampled.
            first = index == 0 and batch.audit is None
            losses.append(step.accumulate(rows, tally, audit if first else None))
            norms += [(learner, learner.step(step.update)) for learner in moving]
        norms += self._teach_critic(step, batch)
        ended = self._learners.end(norms, alone=step.only_critic)
        loss, tally, audit = self._of_all_ranks(losses, tally, audit)
        counted = tally.metrics() | (batch.audit or audit).metrics() | memory.metrics(self.actor.device)
        memory.give_back(self.actor.device)
        return {"trainer/loss": loss} | begun | ended | counted

    @memory.telling("an update of the longest episodes")
    def rehearse(self, batch: TrieBatch, credits: list[list[Credit]], algorithm: Algorithm) -> Rehearsal:
        """Compute an update without moving anything, and return what the rank took that took most."""
        watch = memory.Watch(str(self.actor.device), self._world)
        held = rehearsal.moments(learner.optimizer for learner in self._learners.all)
        self.prepare(batch, algorithm.needs)
        step = replace(self.step(batch, credits, algorithm), only_critic=False)
        for rows in batch.minibatches * 2:
            step.accumulate(rows, Tally(), None)
        del held
        for learner in self._learners.all:
            learner.clear()
        tokens = max(unique_tokens([r for r in rows if r.group == 0]) for rows in batch.minibatches)
        found = watch.rehearsal(tokens)
        memory.give_back(self.actor.device)
        return max(self._world.gather(found), key=lambda each: each.peak)

    def _of_all_ranks(self, losses: list[float], tally: Tally, audit: Audit) -> tuple[float, Tally, Audit]:
        """Put together what the ranks have seen in an update."""
        shares, (tally, *tallies), (audit, *audits) = zip(
            *self._world.gather((losses, tally, audit)), strict=True
        )
        for other in tallies:
            tally.absorb(other)
        for other in audits:
            audit.absorb(other)
        return fmean(map(sum, zip(*shares, strict=True))), tally, audit

    def _teach_critic(self, step: Step, batch: TrieBatch) -> list[tuple[Learner, float]]:
        """Let the critic, if the step has one, learn on alone, and return its gradient norms."""
        learner = self._learners.critic
        if step.critic is None or learner is None:
            return []
        alone, norms = replace(step, only_critic=True), []
        for rows in batch.minibatches * self._critic_config.extra_epochs:
            alone.accumulate(rows, Tally(), None)
            norms.append((learner, learner.step(step.update)))
        return norms

    def step(self, batch: TrieBatch, credits: list[list[Credit]], algorithm: Algorithm) -> Step:
        """Return what the gradients of the next update depend on."""
        critic = self._learners.critic if "values" in algorithm.needs else None
        return Step(
            actor=self._learners.actor.network,
            dtype=self._dtype,
            budget=self.config.micro_batch_tokens,
            algorithm=algorithm,
            batch=batch,
            credits=credits,
            trust_rollout=self.config.old_logprobs == "rollout" and "logprobs" not in algorithm.needs,
            update=self._learners.updates + 1,
            critic=None if critic is None else critic.network,
            only_critic=critic is not None and self._learners.only_critic,
            world=self._world,
        )

    def weights(self) -> Mapping[str, Tensor]:
        """Return the actor's weights for an engine, tied ones once; an adapter is merged in."""
        return self._adapter.weights() if self._adapter else dict(self._learners.actor.weights())

    def save(self, folder: Path) -> None:
        """Write all that `load` needs to go on exactly."""
        self._learners.save(folder, write=self._world.first)

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote. The reference stays the model that `start` loaded."""
        self._learners.load(folder)

    def save_model(self, folder: Path) -> None:
        """Write the actor as a model directory that `--model` and transformers can load."""
        tensors = self._on_cpu()
        with checkpoint.as_os_error():
            if self._world.first:
                self.actor.save_pretrained(folder, state_dict=tensors)
            if self._adapter:
                self._adapter.save(folder / "adapter", write=self._world.first)
            if self._world.first:
                loading.load_tokenizer(self._source).save_pretrained(folder)

    def close(self) -> None:
        """Release the models and the optimizers' state."""
        self.__dict__.clear()

    def write_weights(self, path: Path) -> None:
        """Write the actor's weights to a file for another process, if this is the rank that writes."""
        self._write(self._on_cpu(), path)

    def write_frozen(self, path: Path) -> None:
        """Write the weights of the model that the adapter is on likewise."""
        self._write(self._here(self._adapted().frozen().items()), path)

    def write_adapter(self, path: Path) -> None:
        """Write the adapter likewise, with its config as metadata."""
        config, tensors = self._adapted().adapter()
        self._write(self._here(tensors.items()), path, {"config": json.dumps(config)})

    def _write(self, tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
        if self._world.first:
            with checkpoint.as_os_error():
                save_file(tensors, path, metadata)

    def _adapted(self) -> MergedWeights:
        if self._adapter is None:
            raise UsageError("the trainer was started without an adapter; set trainer.lora.rank")
        return self._adapter.weights()

    def _on_cpu(self) -> dict[str, Tensor]:
        """Put the actor together from all ranks."""
        return self._here(
            self._adapter.weights().items() if self._adapter else self._learners.actor.weights()
        )

    def _here(self, tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
        """Put tensors together, one after the other; ranks that do not write keep nothing."""
        first = self._world.first
        return {name: tensor.cpu().contiguous() for name, tensor in tensors if first}

    def _logprobs(self, batch: TrieBatch, model: nn.Module, audit: Audit | None = None) -> Facts:
        """Return the log-probabilities of all sampled tokens under `model`."""

        def compute(micro: MicroBatch) -> Tensor:
            _, logprobs_N, _ = model(micro, self._dtype)
            if audit and not micro.spare:
                audit.compare(logprobs_N, micro)
            found: Tensor = logprobs_N
            return found

        return self._facts(batch, compute)

    def _values(self, batch: TrieBatch) -> Facts:
        """Return the critic's estimate before each sampled token."""
        actor, critic = self._learners.actor.network, self._learners.critic
        if critic is None or self.critic is None:
            raise UsageError("the trainer was started without a critic; the algorithm must ask for it")
        network, shared = critic.network, self.critic.backbone is None

        def compute(micro: MicroBatch) -> Tensor:
            hidden_RD = actor(micro, self._dtype, project=False)[0] if shared else None
            values_N: Tensor = network(micro, hidden_RD, self._dtype)
            return values_N

        return self._facts(batch, compute)

    def _facts(self, batch: TrieBatch, compute: Callable[[MicroBatch], Tensor]) -> Facts:
        return compute_facts(batch, compute, self.config.micro_batch_tokens, self._world)

    def _open_reference(self) -> AbstractContextManager[nn.Module]:
        if self._reference is None:
            raise UsageError("the trainer was started without a reference; the algorithm must ask for it")
        return self._reference()

    def _new_audit(self) -> Audit:
        return Audit(self.config.audit_threshold or THRESHOLDS[self._dtype])
