"""The runtime plugin: trainer ranks, engines and envs as actors in a placement group.

How its rooms fit together: `config` is what can be said; `placement` decides who gets which part of the
cluster, and `cluster` asks Ray for it. A process of a trainer or engine is kept by a `keeper` on its node,
and is a `peer` here; `wire` and `transport` lead there, and `copies` knows which files are there. Envs live
in a `house` on each node, which `building` builds, and `pool` lends them. `visiting` is what every node is
looked at for.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from agentrl.errors import AgentRLError, UsageError
from agentrl.extras import require
from agentrl.hosting.housing import Housing
from agentrl.hosting.pool import EnvPool
from agentrl.runtime import Peer, Plan, Program, Runtime
from agentrl_ray.building import Builder
from agentrl_ray.cluster import Cluster, wait_for
from agentrl_ray.config import RayConfig
from agentrl_ray.copies import Copies
from agentrl_ray.keeper import SIDE_BY_SIDE, Born, Keeper, Order
from agentrl_ray.peer import RayPeer
from agentrl_ray.placement import Layout, Place, lay_out
from agentrl_ray.pool import HousePool
from agentrl_ray.visiting import invite

_log = logging.getLogger(__name__)


class RayRuntime(Runtime):
    """Has Ray start processes on the nodes of a cluster, or on this machine."""

    class Config(RayConfig):
        """Options of the runtime `ray`."""

    config: RayConfig

    def __init__(self, config: Any = None) -> None:
        """Take a `Config`; None means all defaults."""
        super().__init__(config)
        self._cluster: Cluster | None = None
        self._peers: list[RayPeer] = []
        self._copies = Copies()

    @property
    def colocates(self) -> bool:
        """Whether the options have engine N share a bundle with rank N."""
        return self.config.colocate

    def start(self, plan: Plan) -> None:
        """Join the cluster and have room set aside for all that is planned.

        Raises:
            UsageError: Ray is not installed, or the cluster is not there or has no room.
        """
        require("ray", "the runtime 'ray'", "agentrl-platform[ray]")
        alone = lay_out(plan, self.config, nodes=1)
        if not alone.bundles:
            _log.warning(
                "nothing of this lives in processes of its own, so there is nothing for Ray to place"
            )
            return
        self._cluster = Cluster(self.config, alone.total["CPU"])
        self._layout: Layout = lay_out(plan, self.config, len(self._cluster.nodes()))
        self._cluster.reserve(self._layout)
        self._visit = invite(plan.folders)

    def launch(self, programs: Sequence[Program]) -> list[Peer]:
        """Have processes started on their nodes, all or none.

        Raises:
            UsageError: a node is not fit for them.
            AgentRLError: Ray has no room for them.
        """
        cluster = self._running()
        places = [self._place(program) for program in programs]
        keepers = [cluster.actor(Keeper, place, max_concurrency=SIDE_BY_SIDE) for place in places]
        try:
            begun = self._begin(keepers, programs)
        except BaseException:
            for keeper in keepers:
                _kill(keeper)
            raise
        pairs = zip(keepers, begun, places, programs, strict=True)
        peers = [
            RayPeer(keeper, born, _threads(place, own), cluster, self._copies)
            for keeper, born, place, own in pairs
        ]
        self._peers = [*self._peers, *peers]
        return [*peers]

    @contextmanager
    def meeting(self, peers: Sequence[Peer]) -> Iterator[str]:
        """Yield an address at the node of the first of them.

        Raises:
            AgentRLError: it is gone.
        """
        first = peers[0]
        assert isinstance(first, RayPeer)
        address = f"[{first.address}]" if ":" in first.address else first.address
        try:
            port = first.free_port()
        except EOFError as error:
            raise AgentRLError(f"the process at which others were to meet {error}") from error
        yield f"tcp://{address}:{port}"

    def pool(self, housing: Housing) -> EnvPool:
        """Return envs that live on the nodes."""
        config = self.config
        builder = Builder(self._running(), self._visit, setup=config.setup, wait=config.wait)
        return HousePool(housing, self._layout.houses, builder)

    def close(self) -> None:
        """End what is left, and the cluster if it was started here. May be called twice."""
        peers, self._peers = self._peers, []
        for peer in peers:
            peer.end(0.0)
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            cluster.close()

    def _running(self) -> Cluster:
        if self._cluster is None:
            raise UsageError("the runtime 'ray' was not told of these processes when it was started")
        return self._cluster

    def _place(self, program: Program) -> Place:
        places = self._layout.trainer if program.role == "trainer" else self._layout.engine
        return places[program.number]

    def _begin(self, keepers: Sequence[Any], programs: Sequence[Program]) -> list[Born]:
        """Return where the processes are."""
        import ray

        orders = [self._order(program) for program in programs]
        begun = [keeper.begin.remote(order) for keeper, order in zip(keepers, orders, strict=True)]
        whose, wait = f"the {programs[0].role}'s processes", self.config.wait
        if not wait_for(begun, wait):
            raise AgentRLError(
                f"Ray did not start {whose} within {wait:g} s: a node may be gone or full; --resume goes on "
                "from the last checkpoint, and runtime.wait waits for longer"
            )
        try:
            born: list[Born] = ray.get(begun)
            return born
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayActorError as error:
            raise AgentRLError(f"Ray could not start {whose}: {error}") from error

    def _order(self, program: Program) -> Order:
        return Order(self._visit, program.module, {**program.variables, **self.config.variables})


def _kill(keeper: Any) -> None:
    import ray

    ray.kill(keeper)


def _threads(place: Place, program: Program) -> int | None:
    return int(place.cpus) if program.role == "trainer" else None
