"""`agentrl run --dry-run`: shows what would sit where, and whether its memory is there."""

import logging
from typing import TYPE_CHECKING

from agentrl.errors import AgentRLError, UsageError
from agentrl.hardware import Hardware, here, parse

if TYPE_CHECKING:
    from rich.console import Console

    from agentrl.config import RunConfig

_NO_GPU = "this machine has no GPU; describe the one that the run is for: --gpus 80 (GB), 8x80 or 4x8x80"


def machine(gpus: str | None, memory: float | None, *, dry_run: bool) -> Hardware | None:
    """Return the machine that is meant; None if nothing is said of one.

    Raises:
        UsageError: a machine is described for a run that is to be played here, or only its main memory is.
    """
    if gpus is None:
        if memory is not None:
            raise UsageError("--memory belongs to the machine that --gpus describes; say both")
        return None
    if not dry_run:
        raise UsageError("--gpus describes a machine that is elsewhere; it goes with --dry-run only")
    return parse(gpus, memory)


def show(config: "RunConfig", hardware: Hardware | None, console: "Console") -> None:
    """Show where everything of a run would be; `hardware` is described, or None for this machine.

    Raises:
        AgentRLError: it does not fit, or nothing can be known of its model.
    """
    from agentrl.assembly import model_path
    from agentrl.hub import check_reach
    from agentrl.placement import place
    from agentrl.placement_tables import devices_table, seats_table

    there = hardware or here()
    without_gpu = hardware is None and there.gpus == ()
    if without_gpu and config.device != "cpu":
        raise UsageError(f"the run asks for GPUs (device={config.device}), and {_NO_GPU}")
    check_reach(model_path(config))

    # Of a hub that cannot be reached its library tells every attempt.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    placement = place(config, there)
    console.print(seats_table(placement.seats))
    console.print(devices_table(placement))
    lines = [f"{placement.hardware}", *(f"estimated for {each}" for each in placement.assumed)]
    if config.runtime.name != "local":
        where = "the GPU of rank N" if placement.colocated else "GPUs of its own"
        lines.append(f"the runtime {config.runtime.name!r} is taken to put engine N on {where}")
    lines += [f"the {each} does not say what it takes, so it is not counted" for each in placement.silent]
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
    if missing := placement.shortage():
        raise AgentRLError(f"{_NO_GPU}; here {missing}" if without_gpu else missing)
