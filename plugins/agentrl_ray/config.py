"""What can be said about a run on Ray."""

from typing import Literal

from pydantic import Field, field_validator

from agentrl.interfaces import PluginConfig

# How bundles lie over nodes, in Ray's own words.
Strategy = Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]


class RayConfig(PluginConfig):
    """Options.

    Attributes:
        address: of a running cluster, such as "10.0.0.1:6379"; "auto" is the one that this machine belongs
            to, "local" starts one on this machine, for this run.
        strategy: PACK takes as few nodes as it can, SPREAD as many; STRICT_PACK exactly one, and
            STRICT_SPREAD another one for each bundle.
        colocate: whether engine N shares bundle and GPU with the trainer's rank N; if not, each has its own.
        trainer_cpus: cores of each rank of the trainer, and threads that it computes with.
        engine_cpus: cores of each engine.
        env_cpus: cores of each env worker.
        env_houses: actors among which env workers are shared out; null is one for each node.
        wait: seconds to wait until the cluster has room.
        setup: whether nodes set up the virtual environment of an env, where it is missing.
        variables: environment variables of all processes on all nodes.
    """

    address: str = Field(default="local", min_length=1)
    strategy: Strategy = "PACK"
    colocate: bool = True
    trainer_cpus: int = Field(default=1, ge=1)
    engine_cpus: int = Field(default=1, ge=1)
    env_cpus: float = Field(default=1.0, gt=0)
    env_houses: int | None = Field(default=None, ge=1)
    wait: float = Field(default=120.0, gt=0)
    setup: bool = False
    variables: dict[str, str] = {}

    @field_validator("address")
    @classmethod
    def _reachable(cls, address: str) -> str:
        if address.startswith("ray://"):
            raise ValueError("Ray's client cannot run this; start the run on a node of the cluster")
        return address
