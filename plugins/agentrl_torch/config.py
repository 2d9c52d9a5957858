"""Options of the torch trainer, and of those that refine it."""

from typing import Literal

from pydantic import Field

from agentrl.errors import UsageError
from agentrl.interfaces import PluginConfig
from agentrl.types import Need
from agentrl_torch import loading, optimization
from agentrl_torch.critic import CriticConfig
from agentrl_torch.lora import LoRAConfig


class TorchConfig(PluginConfig):
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
        kernels: "fast" takes the fastest way to the exact numbers, "plain" only public PyTorch. On a GPU
            attention is what differs: `flex_attention`, compiled for the model's heads at the start, or node
            by node, which "fast" falls back to, with a word.
        gradient_checkpointing: computes activations twice instead of keeping them.
        old_logprobs: what the ratio of the loss is taken against. "rollout": what the engine reported,
            audited; where no engine sampled a token, the trainer's own. "recompute": always the
            trainer's own, at the cost of another forward pass if an update makes several steps. An
            algorithm that corrects for the difference gets the trainer's own anyway.
        audit_threshold: how far engine and trainer may disagree about one token, in nats; None is
            0.01 in float32 and 2 in bfloat16.
        lora: trains an adapter in place of all weights (see `lora.LoRAConfig`).
        critic: options of the critic, where the algorithm needs one (see `critic.CriticConfig`).
        ranks: processes that train together, each on a GPU of its own; with more than one, weights, gradients
            and the optimizer's state are split over them (FSDP2).
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
    ranks: int = Field(1, ge=1)

    @property
    def rate(self) -> float:
        """Return the actor's learning rate."""
        return self.learning_rate or (1e-5 if self.lora.rank else 1e-6)

    def check(self, needs: frozenset[Need]) -> None:
        """Raise UsageError if there are options that cannot be combined, or that nothing needs."""
        self.lora.check()
        if self.critic is not None and "values" not in needs:
            raise UsageError(
                "trainer.critic is set, but the algorithm needs no critic; leave it out, or choose one that "
                "does, such as ppo"
            )
