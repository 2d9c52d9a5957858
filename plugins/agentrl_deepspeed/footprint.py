"""What the DeepSpeed trainer takes of memory: what ZeRO's stage splits over ranks, and what is offloaded.

DeepSpeed trains copies of the weights in float32, in what it calls the optimizer. Its buckets are counted at
the size that its documentation gives as the default, 5e8 numbers, where the model is that large.
"""

from pathlib import Path
from typing import Any

from agentrl.footprint import MAIN_MEMORY, Footprint, Holding, Workload
from agentrl.interfaces import Resources
from agentrl.types import Need
from agentrl_torch.footprint import Plan, crew, micro_batch_of, remedies
from agentrl_torch.sizes import count, measure

_BUCKET = 500_000_000


def of_trainer(
    config: Any, model: Path | str, needs: frozenset[Need], resources: Resources, work: Workload
) -> Footprint:
    """Return the footprint of a `DeepSpeedTrainer` with this `Config`."""
    plan = Plan(config, measure(model), needs, resources.device, narrow=True)
    tokens, longest = plan.at_once(work)
    holdings = (*_models(config, plan), *plan.activations(tokens, longest), *plan.handing_over())
    found = list(remedies(config))
    if config.offload_optimizer is None:
        found.append("trainer.offload_optimizer=cpu: the optimizer's state in the main memory")
    if config.stage < 3:
        found.append("trainer.stage=3: weights split as well")
    assumed = (micro_batch_of(tokens, longest), "buckets of DeepSpeed's usual size")
    return Footprint(crew(config.ranks, holdings, resources, alone="its own"), tuple(found), assumed)


def _models(config: Any, plan: Plan) -> list[Holding]:
    ranks, number = config.ranks, plan.product
    actor, critic = plan.sizes.parameters, count(plan.critic_shapes)
    learnt = actor + critic
    reference = actor if plan.has_reference else 0
    of_weights = ranks if config.stage == 3 else 1
    of_gradients = ranks if config.stage >= 2 else 1
    state = 3 * plan.trained  # a copy of the weights, and two moments
    weights = MAIN_MEMORY if config.offload_weights else None
    optimizer = MAIN_MEMORY if config.offload_optimizer else None
    found = [
        Holding("weights", actor * number // of_weights, "afterwards", weights),
        Holding("reference", reference * number // of_weights, "afterwards", weights),
        Holding("critic", critic * number // of_weights, "afterwards", weights),
        Holding("optimizer state", learnt * state // ranks, "afterwards", optimizer),
        Holding("gradients", learnt * number // of_gradients, "learning", optimizer),
        Holding("buckets", 2 * min(learnt, _BUCKET) * number, "learning"),
        Holding("whole models, as they are loaded", (learnt + reference) * plan.trained, "loading"),
    ]
    if config.stage == 3:
        together = 2 * plan.sizes.layer + plan.sizes.parameters - plan.sizes.in_layers
        found.append(Holding("layers put together", together * number, "learning"))
    return found
