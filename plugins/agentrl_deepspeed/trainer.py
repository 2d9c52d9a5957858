"""The trainer plugin: the torch trainer, with DeepSpeed in its ranks.

Every rank is a process of its own, also where there is only one: DeepSpeed wants a process group, chooses its
accelerator for the whole process, and is to disturb nobody there.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from agentrl.errors import UsageError
from agentrl.extras import require
from agentrl.footprint import Footprint, Rehearsal, Workload
from agentrl.interfaces import Algorithm, Crew, Resources
from agentrl.types import Need
from agentrl_deepspeed.zero import Zero
from agentrl_torch.config import TorchConfig
from agentrl_torch.ranks import Ranks
from agentrl_torch.trainer import TorchTrainer

Place = Literal["cpu", "nvme"]


class DeepSpeedTrainer(TorchTrainer):
    """Trains any causal language model of transformers with DeepSpeed's ZeRO, in one process or more."""

    class Config(TorchConfig):
        """Options of the DeepSpeed trainer, besides those of the torch trainer.

        Attributes:
            dtype: of weights and matrix products; "auto" is float32 on the CPU and bfloat16 on CUDA. Of
                bfloat16 weights the optimizer keeps copies in float32, which are what is trained.
            ranks: processes that train together, each on a GPU of its own.
            stage: of ZeRO: over the ranks are split with 1 the optimizer's state, with 2 gradients as well,
                with 3 weights, too.
            offload_optimizer: where the optimizer's state is kept, if not on the GPU.
            offload_weights: where weights that are not in use are kept; with stage 3 only.
            zero: more of DeepSpeed's `zero_optimization`, such as `{"reduce_bucket_size": 100000000}`.
            deepspeed: more of DeepSpeed's own configuration.
        """

        stage: Literal[1, 2, 3] = 2
        offload_optimizer: Place | None = None
        offload_weights: Place | None = None
        zero: dict[str, Any] = Field(default_factory=dict)
        deepspeed: dict[str, Any] = Field(default_factory=dict)

        def check(self, needs: frozenset[Need]) -> None:
            """Raise UsageError if there are options that cannot be combined, or that nothing needs."""
            super().check(needs)
            _check(self)

    config: Config

    @property
    def crew(self) -> Crew:
        """Return the ranks, each a process of its own."""
        return Crew(self.config.ranks)

    def footprint(
        self, model: Path | str, needs: frozenset[Need], resources: Resources, work: Workload
    ) -> Footprint:
        """Return what it takes of memory, from the model's config alone."""
        from agentrl_deepspeed.footprint import of_trainer

        return of_trainer(self.config, model, needs, resources, work)

    def rehearse(self, tokens: int, group_size: int, algorithm: Algorithm) -> Rehearsal | None:
        """Return None: DeepSpeed's engines cannot forget a gradient without a step."""
        return None

    def _make(self) -> Ranks:
        config = self.config
        arguments = {"stage": config.stage, **config.zero}
        for key, where in (("optimizer", config.offload_optimizer), ("param", config.offload_weights)):
            if where is not None:
                arguments[f"offload_{key}"] = {"device": where, **config.zero.get(f"offload_{key}", {})}
        return Ranks(config, Zero(arguments, config.deepspeed))


def _check(config: DeepSpeedTrainer.Config) -> None:
    """Raise UsageError if DeepSpeed is not installed, or cannot do what is asked for."""
    require("deepspeed", "the trainer 'deepspeed'", "agentrl-platform[deepspeed]")
    if config.lora.rank:
        raise UsageError("the trainer 'deepspeed' trains all weights; leave trainer.lora out, or use 'torch'")
    if config.offload_weights and config.stage < 3:
        raise UsageError("trainer.offload_weights needs trainer.stage=3: other stages do not split weights")
    if config.dtype == "float64":
        raise UsageError("DeepSpeed does not compute in float64; leave trainer.dtype at float32")
    for key, own in _OWN.items():
        if key in config.deepspeed:
            raise UsageError(f"trainer.deepspeed.{key} is decided by {own}; set that")
    if "stage" in config.zero:
        raise UsageError("trainer.zero.stage is decided by trainer.stage; set that")


# What would be said twice.
_OWN = {
    "zero_optimization": "trainer.stage and trainer.zero",
    "gradient_clipping": "trainer.max_grad_norm",
    "optimizer": "trainer.learning_rate and its kin",
    "scheduler": "trainer.schedule",
    "bf16": "trainer.dtype",
    "fp16": "trainer.dtype",
    "train_batch_size": "the run's tasks_per_step and group_size",
    "train_micro_batch_size_per_gpu": "trainer.micro_batch_tokens",
    "gradient_accumulation_steps": "trainer.micro_batch_tokens",
    "managed_gradient_accumulation": "trainer.micro_batch_tokens",
}
