"""Splits weights, gradients and optimizer state over ranks with PyTorch's FSDP2 (`fully_shard`).

Each layer is put together from the ranks when it is computed and let go of afterwards. Embeddings, the last
norm and the projection to the vocabulary, which may share weights, are together from the beginning of a pass
to its end. With bfloat16 layers are put together in bfloat16, while what each rank keeps, and sums of
gradients, stay in float32; the critic's head is float32 throughout.
"""

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from transformers import PreTrainedModel

from agentrl_torch.critic import ValueHead
from agentrl_torch.learner import Learner, Recipe
from agentrl_torch.sharding import Sharding, with_adamw
from agentrl_torch.world import World


class FSDP(Sharding):
    """Fully sharded data parallelism over all ranks."""

    def begin(self, world: World, device: str) -> None:
        """Make the mesh of the ranks."""
        super().begin(world, device)
        self.mesh = init_device_mesh(torch.device(device).type, (world.size,))

    def learner(self, recipe: Recipe, dtype: torch.dtype) -> Learner:
        """Return the learner; parameters are split before its optimizer takes them."""
        self._split(recipe.network, dtype)
        return with_adamw(recipe)

    def frozen(self, network: nn.Module, dtype: torch.dtype) -> nn.Module:
        """Return the network, split as well."""
        self._split(network, dtype, part_at_once=True)
        return network

    def _split(self, network: nn.Module, dtype: torch.dtype, part_at_once: bool | None = None) -> None:
        narrow = dtype.itemsize < torch.float32.itemsize
        policy = MixedPrecisionPolicy(dtype, torch.float32) if narrow else MixedPrecisionPolicy()
        for module in list(network.modules()):
            if type(module).__name__ in _layers(network):
                fully_shard(module, mesh=self.mesh, mp_policy=policy)
            elif isinstance(module, ValueHead):
                fully_shard(module, mesh=self.mesh)
        fully_shard(network, mesh=self.mesh, mp_policy=policy, reshard_after_forward=part_at_once)


def _layers(network: nn.Module) -> set[str]:
    """Return what the classes of layers are called, which transformers knows as what is never to be cut."""
    models = [module for module in network.modules() if isinstance(module, PreTrainedModel)]
    return {name for model in models for name in model._no_split_modules or ()}
