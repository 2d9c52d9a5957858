"""Lays models over ranks with DeepSpeed's ZeRO.

Actor and critic are an engine each. DeepSpeed adds up gradients over micro-batches until its `step` is called
(`managed_gradient_accumulation`), and one backward pass of the loss reaches both engines through hooks on
what they have returned.

The optimizer is PyTorch's AdamW, on the CPU as well, where offloaded state is: DeepSpeed's own is compiled on
first use, for minutes.
"""

import logging
import os
import warnings
from typing import Any

import torch
from torch import nn

from agentrl.errors import UsageError
from agentrl_deepspeed.learner import ZeroLearner
from agentrl_torch import optimization
from agentrl_torch.learner import Recipe
from agentrl_torch.sharding import Sharding
from agentrl_torch.world import World


class Zero(Sharding):
    """ZeRO stage 1, 2 or 3."""

    def __init__(self, zero: dict[str, Any], more: dict[str, Any]) -> None:
        """Take DeepSpeed's `zero_optimization`, and what else is to be in its configuration."""
        self._zero = zero
        self._more = more

    def begin(self, world: World, device: str, kept: torch.dtype) -> None:
        """Let DeepSpeed join the process group there is."""
        super().begin(world, device, kept)
        there = torch.device(device)
        # DeepSpeed asks the environment who it is.
        os.environ |= {"RANK": f"{world.rank}", "WORLD_SIZE": f"{world.size}"}
        os.environ |= {"LOCAL_RANK": f"{there.index or 0}", "DS_ACCELERATOR": there.type}
        # What it calls in PyTorch has new names in this version.
        warnings.filterwarnings("ignore", message=".*torch.distributed.*deprecated", category=FutureWarning)
        import deepspeed

        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        # An operation that only inference uses would be compiled now, for minutes.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        backend = "gloo" if there.type == "cpu" else "nccl"
        deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False)

    def learner(self, recipe: Recipe, dtype: torch.dtype) -> ZeroLearner:
        """Return the learner, an engine of DeepSpeed."""
        optimizer = optimization.adamw(
            recipe.module.parameters(), recipe.rate, recipe.betas, recipe.weight_decay
        )
        engine = self._initialize(recipe.network, dtype, recipe.max_norm, optimizer)
        return ZeroLearner(
            name=recipe.name,
            network=engine,
            module=recipe.module,
            optimizer=engine.optimizer,
            rate=recipe.rate,
            max_norm=recipe.max_norm,
            stage=self._zero["stage"],
            ranks=self.world.size,
        )

    def frozen(self, network: nn.Module, dtype: torch.dtype) -> nn.Module:
        """Return the network, split as well in stage 3, else whole in every rank."""
        if self._zero["stage"] < 3:
            return network.to(dtype)
        engine: nn.Module = self._initialize(network, dtype, 0.0, None)
        return engine

    def _initialize(self, network: nn.Module, dtype: torch.dtype, max_norm: float, optimizer: Any) -> Any:
        import deepspeed

        narrow = dtype.itemsize < torch.float32.itemsize
        config = {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "managed_gradient_accumulation": False,
            "gradient_clipping": max_norm,
            "zero_optimization": {"overlap_comm": False, **self._zero},
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "bf16": {"enabled": narrow, "check_grad_overflow": True},
            "steps_per_print": None,
            **self._more,
        }
        try:
            engine, *_ = deepspeed.initialize(model=network, optimizer=optimizer, config=config)
        except (ValueError, AssertionError, TypeError) as error:
            lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
            raise UsageError(f"DeepSpeed refuses its configuration: {' '.join(lines[:3])}") from error
        return engine
