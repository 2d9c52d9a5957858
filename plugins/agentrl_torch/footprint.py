"""What the torch engine and the torch trainer take of memory, from the model's config alone.

Weights, gradients and what AdamW keeps are exact; activations are counted (see `activations`); not counted is
what libraries and a GPU's context take for themselves.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from agentrl.footprint import MAIN_MEMORY, Footprint, Holding, Occupant, Workload
from agentrl.interfaces import Resources
from agentrl.types import Need
from agentrl_torch import activations, flex
from agentrl_torch.activations import Computation
from agentrl_torch.config import TorchConfig
from agentrl_torch.critic import CriticConfig
from agentrl_torch.loading import choose_dtype
from agentrl_torch.micro_batch import HANDY
from agentrl_torch.sizes import Shape, Sizes, count, measure, value_head

ENGINE_REMEDIES = (
    "simulator.concurrency: fewer episodes side by side",
    "engine=vllm: keeps to a share of the GPU, engine.gpu_memory",
)
# Bytes of the step that AdamW counts for each tensor.
_STEP = 4


def of_engine(config: Any, model: Path | str, resources: Resources, work: Workload) -> Footprint:
    """Return the footprint of a `TorchEngine` with this `Config`."""
    sizes = measure(model)
    number = choose_dtype(config.dtype, resources.device).itemsize
    longest = min(sizes.context, work.tokens)
    # Sessions in work are all kept; idle ones up to the budget.
    working = min(work.episodes, config.max_batch) * longest
    tokens = min(work.episodes * longest, max(working, config.kv_cache_tokens))
    token = 2 * sizes.layers * sizes.keys * number
    logits = min(config.max_batch, work.episodes) * sizes.vocabulary * 12
    forward = config.max_prefill * number * (4 * sizes.inner + 6 * sizes.width) + logits
    holdings = (
        Holding("weights", sizes.parameters * number),
        Holding(f"keys and values of {tokens:,} tokens", tokens * token, "playing"),
        Holding("a forward pass", forward, "playing"),
    )
    device = first(resources.device)
    engine = Occupant("engine", "main", device, threads(device, resources.threads), holdings)
    assumed = f"{work.episodes} episodes of {longest:,} tokens side by side"
    return Footprint((engine,), ENGINE_REMEDIES, (assumed,))


def of_trainer(
    config: TorchConfig, model: Path | str, needs: frozenset[Need], resources: Resources, work: Workload
) -> Footprint:
    """Return the footprint of a `TorchTrainer` with this configuration."""
    plan = Plan(config, measure(model), needs, resources.device)
    tokens, longest = plan.at_once(work)
    holdings = (*plan.models(), *plan.learning(), *plan.activations(tokens, longest), *plan.handing_over())
    return Footprint(
        crew(config.ranks, holdings, resources), remedies(config), (micro_batch_of(tokens, longest),)
    )


class Plan:
    """What each rank of a torch trainer holds."""

    def __init__(
        self, config: TorchConfig, sizes: Sizes, needs: frozenset[Need], device: str, *, narrow: bool = False
    ) -> None:
        """Take what it depends on; if `narrow`, layers compute with weights of the type of the products."""
        self.config = config
        self.sizes = sizes
        self.needs = needs
        self.adapter = sizes.adapter(config.lora) if config.lora.rank else []
        dtype = choose_dtype(config.dtype, device)
        self.product = dtype.itemsize
        # What is trained is never narrower than float32; a frozen model is of the type that is computed in.
        self.trained = torch.promote_types(dtype, torch.float32).itemsize
        self.kept = self.product if self.adapter else self.trained
        place = torch.device(device).type
        self.on_gpu = place != "cpu"
        fast = config.kernels == "fast"
        # That a GPU can use its kernel is known only once it was tried.
        maskless = fast and (not self.on_gpu or place in flex.DEVICES)
        fused = fast and not self.on_gpu and dtype == torch.float32
        recompute = config.gradient_checkpointing
        stream = self.product if narrow or config.ranks > 1 else self.kept
        self.computation = Computation(self.product, stream, maskless, fused, bool(self.adapter), recompute)

    @property
    def critic(self) -> CriticConfig | None:
        """Return the options of the critic, if there is to be one."""
        return (self.config.critic or CriticConfig()) if "values" in self.needs else None

    @property
    def has_reference(self) -> bool:
        """Return whether there is a second copy of the model: with LoRA the frozen one serves."""
        return "reference" in self.needs and not self.adapter

    @property
    def critic_shapes(self) -> Sequence[Shape]:
        """Return the shapes of what a critic learns."""
        if self.critic is None:
            return []
        if self.critic.backbone == "shared":
            return value_head(self.sizes)
        return [*(self.adapter or self._backbone()), *value_head(self.sizes)]

    def _backbone(self) -> list[Shape]:
        """Return the shapes of a copy of the model without the projection to the vocabulary."""
        shapes = list(self.sizes.shapes)
        if self.sizes.head:
            shapes.remove((self.sizes.vocabulary, self.sizes.width))
        return shapes

    def at_once(self, work: Workload) -> tuple[int, int]:
        """Return the most unique tokens that are computed at once, and those of the longest episode."""
        longest = min(self.sizes.context, work.tokens)
        budget = min(self.config.micro_batch_tokens, max(HANDY, work.group_size * longest))
        return max(longest, budget), longest

    def models(self) -> list[Holding]:
        """Return the weights of actor, reference and critic, and what loading them takes."""
        ranks, sizes = self.config.ranks, self.sizes
        split = count(sizes.shapes, ranks) * self.kept
        found = [Holding("weights", split)]
        if self.adapter:
            found.append(Holding("adapter", count(self.adapter, ranks) * self.trained))
        if self.has_reference:
            found.append(Holding("reference", split))
        if self.critic:
            found.append(Holding("critic", self._of_critic(self.critic)))
        if ranks > 1:
            # The files are mapped: what of them is in the main memory can go at any time.
            outside = sizes.parameters - sizes.in_layers
            before = (sizes.layer + outside) * self.kept
            found.append(Holding("layers, before they are split", before, "loading"))
        elif self.on_gpu:
            whole = sizes.parameters * self.kept
            found.append(Holding("weights on their way to a GPU", whole, "loading", MAIN_MEMORY))
        return found

    def _of_critic(self, critic: CriticConfig) -> int:
        """Return the bytes of a critic; with LoRA the frozen ones are the actor's, unless split."""
        ranks = self.config.ranks
        learnt = count(self.critic_shapes, ranks) * self.trained
        frozen = ranks > 1 and self.adapter and critic.backbone == "separate"
        return learnt + (count(self._backbone(), ranks) * self.kept if frozen else 0)

    def learning(self) -> list[Holding]:
        """Return gradients, what the optimizers keep, and the weights that are put together or narrowed."""
        ranks = self.config.ranks
        learnt = [*(self.adapter or self.sizes.shapes), *self.critic_shapes]
        numbers = count(learnt, ranks)
        state = 2 * numbers * self.trained + _STEP * len(learnt)
        found = [
            Holding("optimizer state", state, "afterwards"),
            Holding("gradients", numbers * self.trained, "learning"),
        ]
        models = 1 + bool(self.critic and self.critic.backbone == "separate")
        if ranks > 1:
            outside = self.sizes.parameters - self.sizes.in_layers
            together = (2 * self.sizes.layer + outside * models) * self.product
            found.append(Holding("layers put together", together, "learning"))
        elif self.product < self.trained and not self.adapter:
            narrowed = self.sizes.dense * self.product * models
            found.append(Holding("weights in bfloat16", narrowed, "learning"))
        return found

    def activations(self, tokens: int, longest: int) -> list[Holding]:
        """Return the activations of the largest micro-batch; those of a critic's backbone besides."""
        size = activations.of_micro_batch(self.sizes, self.computation, tokens, longest)
        models = 1 + bool(self.critic and self.critic.backbone == "separate")
        return [Holding(f"activations of {tokens:,} tokens", size * models, "learning")]

    def handing_over(self) -> list[Holding]:
        """Return what weights take on their way to the engine."""
        found = []
        if self.adapter:
            largest = max(inputs * outputs for _, inputs, outputs in self.sizes.adaptable)
            found.append(Holding("a merged layer", 2 * largest * self.trained, "handing over"))
        if self.config.ranks > 1:
            whole, layer = (size * self.kept for size in (self.sizes.parameters, self.sizes.layer))
            found.append(Holding("a layer put together", layer, "handing over"))
            for what in ("weights put together", "their file in shared memory"):
                found.append(Holding(what, whole, "handing over", MAIN_MEMORY))
        return found


def crew(
    ranks: int, holdings: Sequence[Holding], resources: Resources, alone: str = "main"
) -> tuple[Occupant, ...]:
    """Return the processes of a trainer; only the first hands weights over in the main memory.

    `alone` says where the only one runs, if there is but one.
    """
    device = first(resources.device)
    if ranks == 1:
        return (Occupant("trainer", alone, device, threads(device, resources.threads), tuple(holdings)),)
    of_all = [each for each in holdings if each.moment != "handing over" or each.device is None]
    share = max(1, resources.threads // ranks)
    return tuple(
        Occupant(
            f"trainer, rank {rank}",
            "its own",
            device if device == MAIN_MEMORY else further(device, rank),
            threads(device, share),
            tuple(of_all if rank else holdings),
        )
        for rank in range(ranks)
    )


def remedies(config: TorchConfig) -> tuple[str, ...]:
    """Return the options of a torch trainer that save memory and are not yet used."""
    found = []
    if not config.gradient_checkpointing:
        found.append("trainer.gradient_checkpointing=true: activations are computed twice, not kept")
    found.append("trainer.micro_batch_tokens: fewer tokens at once, down to those of an episode")
    if config.ranks > 1:
        found.append("trainer.ranks: more of them")
    else:
        found.append("trainer.ranks: weights, gradients and optimizer state split over GPUs")
    if config.ranks == 1 and not config.lora.rank:
        found.append("trainer.lora.rank: an adapter in place of all weights")
        found.append("trainer=deepspeed with trainer.offload_optimizer=cpu")
    return tuple(found)


def micro_batch_of(tokens: int, longest: int) -> str:
    """Return in words what the activations are of."""
    return f"micro-batches of {tokens:,} tokens, of episodes of up to {longest:,}"


def first(device: str) -> str:
    """Return a device by its number."""
    return "cuda:0" if device == "cuda" else device


def further(device: str, steps: int) -> str:
    """Return the device that comes so many after this one."""
    return f"cuda:{(torch.device(device).index or 0) + steps}"


def threads(device: str, count: int) -> int:
    """Return how many threads compute; where a GPU does, one gives it its work."""
    return count if device == MAIN_MEMORY else 1
