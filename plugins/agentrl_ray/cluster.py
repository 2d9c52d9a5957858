"""The cluster that a run is on: joined or started, quietly; its nodes, and the room in it."""

import logging
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from agentrl.errors import UsageError, first_line
from agentrl.machine import cores
from agentrl_ray.config import RayConfig
from agentrl_ray.placement import Bundle, Layout, Place

# Seconds in which it comes to light that it was a node that died, and not an actor alone.
_HINDSIGHT = 5.0
# Seconds after which Ray surely knows that a node does not answer any more.
_CERTAINTY = 90.0
_POLL_SECONDS = 0.2
# Seconds that Ray is waited for before Ctrl-C is looked at again.
_SLICE = 1.0
# Seconds until a cluster answers.
_PATIENCE = 10.0


class Cluster:
    """Ray, as the process of the run sees it."""

    def __init__(self, config: RayConfig, cpus: float) -> None:
        """Join the cluster that `config` names, or start one here that has as many cores as are wanted.

        Raises:
            UsageError: there is no such cluster.
        """
        self._config = config
        self._group: Any = None
        self._mine = _join(config.address, cpus)
        import ray

        self.here: str = ray.get_runtime_context().get_node_id()

    def nodes(self) -> dict[str, str]:
        """Return the addresses of the nodes that are there, by id."""
        import ray

        return {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}

    def reserve(self, layout: Layout) -> None:
        """Have all bundles set aside, or none.

        Raises:
            UsageError: there is no room for them.
        """
        from ray.util.placement_group import placement_group, remove_placement_group

        group = placement_group(layout.bundles, strategy=self._config.strategy)
        deadline = time.monotonic() + self._config.wait
        while not group.wait(_SLICE):
            if time.monotonic() > deadline:
                remove_placement_group(group)
                raise UsageError(self._no_room(layout))
        self._group = group

    def _no_room(self, layout: Layout) -> str:
        import ray

        there, free = ray.cluster_resources(), ray.available_resources()
        names = list(layout.total)
        config, bundles = self._config, len(layout.bundles)
        return (
            f"the Ray cluster had no room for this run within {config.wait:g} s: it needs "
            f"{_amounts(layout.total, names)} in {bundles} bundles ({config.strategy}), and its "
            f"{len(self.nodes())} nodes have {_amounts(there, names)}, of which {_amounts(free, names)} are "
            "free; ask for less, or wait for longer with runtime.wait"
        )

    def actor(self, kind: type, place: Place, **more: Any) -> Any:
        """Start an actor in its place; it may not be there yet."""
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        where = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=place.bundle)
        actor = ray.remote(kind).options(
            num_cpus=place.cpus, num_gpus=place.gpus, scheduling_strategy=where, max_restarts=0, **more
        )
        return actor.remote()

    def loss(self, actor: Any, node: str, address: str) -> str:
        """Return how it came that an actor on a node is gone, once that is certain."""
        _await_death(actor)
        deadline = time.monotonic() + _HINDSIGHT
        while node in self.nodes() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        if node not in self.nodes():
            return f"was lost with its node {address}, which is gone"
        return f"was lost with the Ray actor on the node {address} that kept it"

    def close(self) -> None:
        """Give back what is reserved, and end the cluster if it was started here. May be called twice."""
        import ray
        from ray.util.placement_group import remove_placement_group

        group, self._group = self._group, None
        if group is not None:
            with suppress(ray.exceptions.RayError):
                remove_placement_group(group)
        if self._mine:
            self._mine = False
            _keeping_signals(ray.shutdown)


def _await_death(actor: Any) -> None:
    """Wait until an actor that did not answer is known to be dead, but not for ever."""
    import ray

    deadline = time.monotonic() + _CERTAINTY
    while time.monotonic() < deadline:
        try:
            ray.get(actor.__ray_ready__.remote(), timeout=_SLICE)
        except (ray.exceptions.ActorUnavailableError, ray.exceptions.GetTimeoutError):
            time.sleep(_POLL_SECONDS)
        except ray.exceptions.RayError:
            return
        else:  # it is back, but nobody knows what it has missed
            ray.kill(actor)
            return


def wait_for(references: Sequence[Any], seconds: float) -> bool:
    """Wait until all are there, or the time is over, and return whether they are; Ctrl-C is heeded."""
    import ray

    deadline, missing = time.monotonic() + seconds, list(references)
    while missing and time.monotonic() < deadline:
        _, missing = ray.wait(missing, num_returns=len(missing), timeout=_SLICE)
    return not missing


def _join(address: str, cpus: float) -> bool:
    """Join or start a cluster, unless that was done; return whether it is ours to leave."""
    import ray

    if ray.is_initialized():
        return False
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    local = {"num_cpus": max(cores(), math.ceil(cpus)), "include_dashboard": False}
    # What Ray's processes inherit: they report to nobody.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        _knock(address)
        _keeping_signals(lambda: ray.init(address, **quiet, **(local if address == "local" else {})))
    except Exception as error:  # Ray raises that itself, where something took too long
        if address == "local":
            raise UsageError(f"Ray could not be started on this machine: {first_line(error)}") from error
        raise UsageError(
            f"there is no Ray cluster at runtime.address={address!r} ({first_line(error)}); start one with "
            "`ray start --head`, or leave runtime.address out to have one on this machine"
        ) from error
    return True


def _knock(address: str) -> None:
    """Raise OSError or ValueError at once where nobody answers, for Ray would try for minutes."""
    if address not in ("local", "auto"):
        host, _, port = address.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()


def _keeping_signals(work: Callable[[], Any]) -> None:
    """Do what replaces the handler of SIGTERM, which is the run's own."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        work()
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)


def _amounts(bundle: Bundle, names: Sequence[str]) -> str:
    return " and ".join(f"{bundle.get(name, 0.0):g} {name}s" for name in names)
