"""Trains the actor on token tries: every token that trajectories share is computed once, and exactly.

The way of an update: groups -> `micro_batch` -> `trie` -> `forward`, through `attention` -> log-probabilities
of sampled tokens -> the algorithm's loss -> gradients, added up over micro-batches with the denominators of
the whole minibatch (`update`) -> `optimization`. On the CPU the same inputs give the same bits.

The log-probabilities before the update ("old") need no pass of their own by default: they are those that the
engine reported, which the audit compares with the trainer's own before anything is written.

An algorithm that needs values gets a `critic` beside the actor: estimated before the update, for credit, and
again inside it, with gradient.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedModel

from agentrl.errors import UsageError
from agentrl.interfaces import Algorithm, PluginConfig, Resources, Trainer
from agentrl.types import Batch, Credit, Group, Need
from agentrl_torch import adaptation, checkpoint, kernels, loading, micro_batch, optimization
from agentrl_torch.audit import THRESHOLDS, Audit
from agentrl_torch.critic import Critic, CriticConfig, explained_variance
from agentrl_torch.forward import hidden_states, sampled_logprobs
from agentrl_torch.learner import Learner
from agentrl_torch.learners import Learners, Pace
from agentrl_torch.lora import Adapter, LoRAConfig
from agentrl_torch.metrics import Tally
from agentrl_torch.micro_batch import MicroBatch
from agentrl_torch.update import Facts, Step, TrieBatch, check_credits, compute_facts


class TorchTrainer(Trainer):
    """Trains any causal language model of transformers, on one device."""

    provides: ClassVar[frozenset[Need]] = frozenset({"values", "reference", "logprobs"})

    class Config(PluginConfig):
        """Options of the torch trainer.

        Attributes:
            learning_rate: of AdamW, at the top of the schedule; None is 1e-6, or 1e-5 with LoRA: an adapter
                wants about ten times as much as all weights.
            weight_decay: of matrices; biases and norms do not decay.
            betas: of AdamW.
            warmup_steps: updates over which the learning rate rises.
            schedule: what it does after that, until the last update.
            max_grad_norm: longer gradients are scaled down to this norm.
            epochs: how often an update goes over its trajectories.
            minibatches: how many optimizer steps it makes in each.
            micro_batch_tokens: how many unique tokens may be computed at once; bounds the memory. A group
                that fits shares all it can.
            dtype: of the matrix products; "auto" is float32 on the CPU and bfloat16 on CUDA. The weights
                that are trained are never narrower than float32: small steps would be rounded away. With
                LoRA the frozen ones are of this type.
            kernels: "fast" takes the fastest way to the exact numbers, "plain" only public PyTorch.
            gradient_checkpointing: computes activations twice instead of keeping them.
            old_logprobs: what the ratio of the loss is taken against. "rollout": what the engine reported,
                audited; where no engine sampled a token, the trainer's own. "recompute": always the
                trainer's own, at the cost of another forward pass if an update makes several steps. An
                algorithm that corrects for the difference gets the trainer's own anyway.
            audit_threshold: how far engine and trainer may disagree about one token, in nats; None is
                0.01 in float32 and 2 in bfloat16.
            lora: trains an adapter in place of all weights (see `lora.LoRAConfig`).
            critic: options of the critic, where the algorithm needs one (see `critic.CriticConfig`).
        """

        learning_rate: float | None = Field(None, gt=0)
        weight_decay: float = Field(0.0, ge=0)
        betas: tuple[float, float] = (0.9, 0.95)
        warmup_steps: int = Field(0, ge=0)
        schedule: optimization.Schedule = "constant"
        max_grad_norm: float = Field(1.0, gt=0)
        epochs: int = Field(1, ge=1)
        minibatches: int = Field(1, ge=1)
        micro_batch_tokens: int = Field(16384, ge=1)
        dtype: loading.DtypeName = "auto"
        kernels: Literal["fast", "plain"] = "fast"
        gradient_checkpointing: bool = False
        old_logprobs: Literal["rollout", "recompute"] = "rollout"
        audit_threshold: float | None = Field(None, gt=0)
        lora: LoRAConfig = LoRAConfig()
        critic: CriticConfig | None = None

        @property
        def rate(self) -> float:
            """Return the actor's learning rate."""
            return self.learning_rate or (1e-5 if self.lora.rank else 1e-6)

    config: Config

    def check(self, needs: frozenset[Need]) -> None:
        """Raise UsageError if there are options for a critic or an adapter that nothing needs."""
        self.config.lora.check()
        if self.config.critic is not None and "values" not in needs:
            raise UsageError(
                "trainer.critic is set, but the algorithm needs no critic; leave it out, or choose one that "
                "does, such as ppo"
            )

    def start(self, model: Path | str, needs: frozenset[Need], steps: int, resources: Resources) -> None:
        """Load the actor, and what `needs` asks for; `steps` is the length of the schedule."""
        torch.set_num_threads(resources.threads)
        self._source = model
        self._dtype = loading.choose_dtype(self.config.dtype, resources.device)
        lora = self.config.lora
        kept = self._dtype if lora.rank else torch.promote_types(self._dtype, torch.float32)
        self._actor = loading.load_model(model, kept, resources.device)
        self._adapter = Adapter(self._actor, lora, resources.seed) if lora.rank else None
        plain = self.config.kernels == "plain"
        if not plain:
            kernels.accelerate(self._actor)
        adaptation.use_trie(self._actor, plain)
        self._reference = self._make_reference() if "reference" in needs else None
        self._critic = Critic(self._actor, self._critic_config) if "values" in needs else None
        if self.config.gradient_checkpointing:
            adaptation.keep_no_activations(self._actor)
            if self._critic and self._critic.backbone:
                adaptation.keep_no_activations(self._critic.backbone)
        self._learners = self._make_learners(steps)

    def _make_reference(self) -> Callable[[], AbstractContextManager[PreTrainedModel]]:
        """Return what opens the model that was loaded: with LoRA, the actor without its adapter."""
        if self._adapter:
            return self._adapter.base
        reference = adaptation.frozen_copy(self._actor)
        return lambda: nullcontext(reference)

    def _make_learners(self, steps: int) -> Learners:
        """Return the actor, and the critic if there is one, with new optimizers."""
        config, of_critic, critic = self.config, self._critic_config, None
        shared = config.betas, config.weight_decay
        rate = config.rate
        actor = Learner.make(
            "actor", self._actor, self._actor.parameters(), rate, config.max_grad_norm, *shared
        )
        if self._critic:
            learnt, rate = self._critic.learnt(), of_critic.rate(rate)
            critic = Learner.make("critic", self._critic, learnt, rate, of_critic.max_grad_norm, *shared)
        return Learners(actor, critic, Pace(config.schedule, steps, config.warmup_steps), of_critic)

    @property
    def _critic_config(self) -> CriticConfig:
        return self.config.critic or CriticConfig()

    def prepare(self, groups: list[Group], needs: frozenset[Need]) -> TrieBatch:
        """Return the batch, without failed trajectories, with what `needs` asks for.

        `logprobs` are there if they are needed, or had to be recomputed (see `Config.old_logprobs`).
        """
        groups = [Group(g.task, [t for t in g.trajectories if not t.failed]) for g in groups]
        groups = [group for group in groups if group.trajectories]
        rows = micro_batch.encode(groups)
        batch = TrieBatch(groups, minibatches=micro_batch.split(rows, self.config.minibatches))
        # In an update of one step the old log-probabilities are those that it computes anyway.
        several_steps = self.config.epochs * self.config.minibatches > 1
        if "logprobs" in needs or (several_steps and self.config.old_logprobs == "recompute"):
            batch.audit = self._new_audit()
            batch.logprobs = self._logprobs(batch, self._actor, batch.audit)
        if "reference" in needs:
            with self._open_reference() as reference:
                batch.reference_logprobs = self._logprobs(batch, reference)
        if "values" in needs:
            batch.values = self._values(batch)
        return batch

    def _trusts_rollout(self, needs: frozenset[Need]) -> bool:
        return self.config.old_logprobs == "rollout" and "logprobs" not in needs

    def update(self, batch: Batch, credits: list[list[Credit]], algorithm: Algorithm) -> dict[str, float]:
        """Train on the batch and return metrics: loss, gradient norm, learning rate, what `loss` logged.

        Raises:
            AgentRLError: engine and trainer disagree about a token, or a loss or gradient is not finite.
        """
        if not isinstance(batch, TrieBatch):
            raise UsageError("the torch trainer can only train on a batch that it has prepared itself")
        if not batch.minibatches:
            raise UsageError("there is nothing to train on: no trajectory of the update has a sampled token")
        check_credits(batch.groups, credits, algorithm)
        explained = None if batch.values is None else explained_variance(batch, credits)
        begun = self._learners.begin(explained)
        step = self._step(batch, credits, algorithm)
        tally, audit = Tally(), batch.audit or self._new_audit()
        moving = self._learners.moving(with_critic=step.critic is not None)
        losses, norms = [], []
        for index, rows in enumerate(batch.minibatches * self.config.epochs):
            # After the first step the weights are no longer those that sampled.
            first = index == 0 and batch.audit is None
            losses.append(step.accumulate(rows, tally, audit if first else None))
            norms += [(learner, learner.step(step.update)) for learner in moving]
        norms += self._teach_critic(step, batch)
        ended = self._learners.end(norms, alone=step.only_critic)
        return {"trainer/loss": fmean(losses)} | begun | ended | tally.metrics() | audit.metrics()

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

    def weights(self) -> Mapping[str, Tensor]:
        """Return the actor's weights for an engine: views, tied ones once; an adapter is merged in."""
        if self._adapter:
            return self._adapter.weights()
        return checkpoint.unique_state(self._actor)

    def save(self, folder: Path) -> None:
        """Write all that `load` needs to go on exactly."""
        self._learners.save(folder)

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote. The reference stays the model that `start` loaded."""
        self._learners.load(folder)

    def save_model(self, folder: Path) -> None:
        """Write the actor as a model directory that `--model` and transformers can load."""
        if self._adapter:
            self._adapter.save_model(folder)
        else:
            self._actor.save_pretrained(folder)
        loading.load_tokenizer(self._source).save_pretrained(folder)

    def close(self) -> None:
        """Release the models and the optimizers' state."""
        for name in ("_actor", "_adapter", "_reference", "_critic", "_learners"):
            self.__dict__.pop(name, None)

    def _step(self, batch: TrieBatch, credits: list[list[Credit]], algorithm: Algorithm) -> Step:
        critic = self._critic if "values" in algorithm.needs else None
        return Step(
            actor=self._actor,
            dtype=self._dtype,
            budget=self.config.micro_batch_tokens,
            algorithm=algorithm,
            batch=batch,
            credits=credits,
            trust_rollout=self._trusts_rollout(algorithm.needs),
            update=self._learners.updates + 1,
            critic=critic,
            only_critic=critic is not None and self._learners.only_critic,
        )

    def _logprobs(self, batch: TrieBatch, model: PreTrainedModel, audit: Audit | None = None) -> Facts:
        """Return the log-probabilities of all sampled tokens under `model`."""

        def compute(micro: MicroBatch) -> Tensor:
            logprobs_N, _ = sampled_logprobs(model, micro, self._dtype)
            if audit:
                audit.compare(logprobs_N, micro)
            return logprobs_N

        return compute_facts(batch, compute, self.config.micro_batch_tokens)

    def _values(self, batch: TrieBatch) -> Facts:
        """Return the critic's estimate before each sampled token."""
        critic = self._critic
        if critic is None:
            raise UsageError("the trainer was started without a critic; the algorithm must ask for it")

        def compute(micro: MicroBatch) -> Tensor:
            shared = critic.backbone is None
            hidden_RD = hidden_states(self._actor, micro, self._dtype) if shared else None
            return critic.values(micro, hidden_RD, self._dtype)

        return compute_facts(batch, compute, self.config.micro_batch_tokens)

    def _open_reference(self) -> AbstractContextManager[PreTrainedModel]:
        if self._reference is None:
            raise UsageError("the trainer was started without a reference; the algorithm must ask for it")
        return self._reference()

    def _new_audit(self) -> Audit:
        return Audit(self.config.audit_threshold or THRESHOLDS[self._dtype])
