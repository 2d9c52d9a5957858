"""Who gets which part of a cluster: bundles, which Ray keeps together, and places in them.

A bundle is on one node. Each rank of the trainer has one, and the engine of its number lives in it, too,
where the two are colocated: they take turns with the GPU. Each house of env workers has one as well.
"""

from dataclasses import dataclass, field

from agentrl.errors import UsageError
from agentrl.runtime import Plan
from agentrl_ray.config import RayConfig

Bundle = dict[str, float]


@dataclass(frozen=True, slots=True)
class Place:
    """Room for one actor: the number of its bundle, cores and GPUs, and for a house how many workers."""

    bundle: int
    cpus: float
    gpus: float = 0.0
    workers: int = 0


@dataclass(slots=True)
class Layout:
    """All bundles, and the places of those who live there."""

    bundles: list[Bundle] = field(default_factory=list)
    trainer: list[Place] = field(default_factory=list)
    engine: list[Place] = field(default_factory=list)
    houses: list[Place] = field(default_factory=list)

    def new(self, cpus: float, gpus: float = 0.0) -> int:
        """Add a bundle and return its number."""
        amounts = {"CPU": float(cpus), "GPU": float(gpus)}
        self.bundles.append({name: amount for name, amount in amounts.items() if amount})
        return len(self.bundles) - 1

    @property
    def total(self) -> Bundle:
        """Return what all bundles hold together."""
        names = {name: None for bundle in self.bundles for name in bundle}
        return {name: sum(bundle.get(name, 0.0) for bundle in self.bundles) for name in names}


def lay_out(plan: Plan, config: RayConfig, nodes: int) -> Layout:
    """Return who gets what in a cluster of so many nodes.

    Raises:
        UsageError: engines that need several GPUs each cannot share those of ranks.
    """
    layout = Layout()
    pairs = min(plan.trainer.processes, plan.engine.processes) if config.colocate else 0
    on_gpu = plan.device.startswith("cuda")
    if pairs and on_gpu and plan.engine.gpus != plan.trainer.gpus:
        raise UsageError(
            f"an engine of {plan.engine.gpus} GPUs cannot share those of a rank, which has "
            f"{plan.trainer.gpus}; set runtime.colocate=false"
        )
    _add_trainer(layout, plan.trainer.processes, pairs, plan.trainer.gpus * on_gpu, config)
    _add_engines(layout, plan.engine.processes, pairs, plan.engine.gpus * on_gpu, config)
    houses = min(plan.workers, config.env_houses or nodes)
    for number in range(houses):
        workers = plan.workers // houses + (number < plan.workers % houses)
        cpus = workers * config.env_cpus
        layout.houses.append(Place(layout.new(cpus), cpus, workers=workers))
    return layout


def _add_trainer(layout: Layout, ranks: int, pairs: int, gpus: int, config: RayConfig) -> None:
    for number in range(ranks):
        shared = number < pairs
        bundle = layout.new(config.trainer_cpus + config.engine_cpus * shared, gpus)
        layout.trainer.append(Place(bundle, config.trainer_cpus, gpus / (1 + shared)))


def _add_engines(layout: Layout, engines: int, pairs: int, gpus: int, config: RayConfig) -> None:
    for number in range(engines):
        if number < pairs:
            layout.engine.append(Place(layout.trainer[number].bundle, config.engine_cpus, gpus / 2))
        else:
            layout.engine.append(Place(layout.new(config.engine_cpus, gpus), config.engine_cpus, gpus))
