"""Splits weights, gradients and optimizer state over ranks with PyTorch's FSDP2 (`fully_shard`).

Each layer is put together from the ranks when it is computed and let go of afterwards. Embeddings, the last
norm and the projection to the vocabulary, which may share weights, are together from the beginning of a pass
to its end. With bfloat16 layers are put together in bfloat16, while what each rank keeps of what it learns,
and sums of gradients, stay in float32; the critic's head is float32 throughout. An adapter is split with the
layer that it is on.

Every rank loads the model into the main memory, where its files are only mapped: one copy of them serves all
ranks of a machine, the reference and the critic. What goes to the device is a layer at a time, to be split.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from agentrl_torch import loading
from agentrl_torch.critic import ValueHead
from agentrl_torch.learner import Learner, Recipe
from agentrl_torch.sharding import Sharding, with_adamw
from agentrl_torch.world import World


class FSDP(Sharding):
    """Fully sharded data parallelism over all ranks."""

    def begin(self, world: World, device: str, kept: torch.dtype) -> None:
        """Make the mesh of the ranks."""
        super().begin(world, device, kept)
        self.mesh = init_device_mesh(torch.device(device).type, (world.size,))

    def load(self, path: Path | str, *, widened: bool) -> PreTrainedModel:
        """Load a model into the main memory; its weights get their type when they are split."""
        load = loading.map_model if widened else loading.load_model
        return load(path, self.kept, "cpu")

    def computing(self, model: PreTrainedModel) -> AbstractContextManager[None]:
        """Return a context in which a model in the main memory computes on the device."""
        for buffer in model.buffers():
            buffer.data = buffer.to(self.device)
        return _visiting(model, self._placed)

    def copied(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return a copy on the same memory, from which each takes its part when it is split."""
        same = {id(weight): nn.Parameter(weight.data, weight.requires_grad) for weight in model.parameters()}
        return copy.deepcopy(model, dict(same))

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
        for layer in _layers(network):
            self._shard(layer, mp_policy=policy)
        for module in list(network.modules()):
            if isinstance(module, ValueHead):
                self._shard(module)
        self._shard(network, mp_policy=policy, reshard_after_forward=part_at_once)

    def _shard(self, module: nn.Module, **options: Any) -> None:
        """Bring what is not split yet to the device, and split it."""
        for weight in module.parameters():
            if not isinstance(weight, DTensor):
                weight.data = self._placed(weight)
        fully_shard(module, mesh=self.mesh, **options)

    def _placed(self, weight: Tensor) -> Tensor:
        """Return a weight on the device, of the type in which it is kept."""
        return weight.data.to(self.device, torch.promote_types(weight.dtype, self.kept))


def _layers(network: nn.Module) -> list[nn.Module]:
    """Return the layers, by their classes, which transformers knows as what is never to be cut."""
    models = [module for module in network.modules() if isinstance(module, PreTrainedModel)]
    names = {name for model in models for name in model._no_split_modules or ()}
    return [module for module in network.modules() if type(module).__name__ in names]


@contextmanager
def _visiting(model: nn.Module, placed: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Have weights `placed`: those of a layer for as long as it computes, the others as long as the block."""
    own = {layer: list(layer.parameters()) for layer in _layers(model)}
    inside = {id(weight) for weights in own.values() for weight in weights}
    own[model] = [weight for weight in model.parameters() if id(weight) not in inside]
    before: dict[nn.Module, list[Tensor]] = {}

    def bring(module: nn.Module, *_: Any) -> None:
        before[module] = [weight.data for weight in own[module]]
        for weight in own[module]:
            weight.data = placed(weight)

    def restore(module: nn.Module, *_: Any) -> None:
        for weight, data in zip(own[module], before.pop(module), strict=True):
            weight.data = data

    layers = [layer for layer in own if layer is not model]
    hooks = [layer.register_forward_pre_hook(bring) for layer in layers]
    hooks += [layer.register_forward_hook(restore) for layer in layers]
    try:
        bring(model)
        yield
    finally:
        for module in list(before):
            restore(module)
        for hook in hooks:
            hook.remove()
