"""`agentrl run --dry-run`: shows what would sit where, and whether its memory is there."""

import logging
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from agentrl.errors import AgentRLError, UsageError
from agentrl.hardware import GIB, Hardware, here, parse

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from agentrl.config import RunConfig
    from agentrl.footprint import Load
    from agentrl.placement import Placement, Seat

# Least that is shown of what a device holds, GiB.
_CRUMBS = 0.005


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
    """Show where everything of a run would be.

    Raises:
        AgentRLError: it does not fit.
    """
    from agentrl.placement import place

    # Of a hub that cannot be reached its library tells every attempt.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    placement = place(config, hardware or here())
    console.print(_seats(placement.seats))
    console.print(_devices(placement))
    lines = [f"{placement.hardware}", *(f"estimated for {each}" for each in placement.assumed)]
    if config.runtime.name != "local":
        where = "the GPU of rank N" if placement.colocated else "GPUs of its own"
        lines.append(f"the runtime {config.runtime.name!r} is taken to put engine N on {where}")
    lines += [f"the {each} does not say what it takes, so it is not counted" for each in placement.silent]
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
    _refuse_what_does_not_fit(placement)


def _refuse_what_does_not_fit(placement: "Placement") -> None:
    from agentrl.footprint import MAIN_MEMORY

    for peak in placement.peaks:
        verdict = placement.verdict(peak)
        if verdict == "no such device":
            raise AgentRLError(
                f"the run wants {peak.device}, and there is none: {placement.hardware}; lower trainer.ranks "
                "or engine.engines, or set device"
            )
        if verdict == "too much":
            room = (placement.room(peak.device) or 0) / GIB
            remedies = "; ".join(placement.remedies)
            holder = peak.device.replace(MAIN_MEMORY, "main memory")
            raise AgentRLError(
                f"{holder} would have to hold {peak.bytes / GIB:.1f} GiB while {_doing(peak)} and has "
                f"{room:.1f}; what saves memory: {remedies}"
            )


def _seats(seats: "Sequence[Seat]") -> "Table":
    """Return the table of what sits where; what is numbered and otherwise alike is one row."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table("what", "process", "device", "threads", box=box.SIMPLE)
    alike = groupby(seats, lambda seat: (seat.name.rstrip("0123456789"), seat.process, seat.threads))
    for (_, process, threads), some in alike:
        first, *rest = some
        last = rest[-1] if rest else first
        name = first.name if last is first else f"{first.name} to {last.name.rpartition(' ')[2]}"
        table.add_row(escape(name), process, _through(first.device, last.device), threads)
    return table


def _devices(placement: "Placement") -> "Table":
    """Return the table of what devices hold, moment by moment; those that are alike are shown once."""
    from rich import box
    from rich.table import Table

    from agentrl.footprint import MOMENTS

    table = Table("GiB", *MOMENTS, "of", "", box=box.SIMPLE)
    for column in table.columns[1:-1]:
        column.justify = "right"
    for some in _alike(placement):
        first, loads = some[0], placement.loads[some[0].device]
        room, verdict = placement.room(first.device), placement.verdict(first)
        has = f"{room / GIB:.1f}" if room else "?"
        totals = (_gib(load.bytes) for load in loads)
        table.add_row(_through(first.device, some[-1].device), *totals, has, verdict, style="bold")
        for name, sizes in _parts(loads).items():
            if max(sizes) / GIB >= _CRUMBS:
                table.add_row(f"  {name}", *map(_gib, sizes))
    return table


def _alike(placement: "Placement") -> "Iterator[list[Load]]":
    """Yield the peaks by device, those of devices that follow one another and hold the same together."""

    def key(peak: "Load") -> object:
        kind = peak.device.partition(":")[0]
        sizes = tuple(load.bytes for load in placement.loads[peak.device])
        return kind, sizes, placement.room(peak.device)

    devices = sorted(placement.peaks, key=_place)
    for _, some in groupby(devices, key):
        yield list(some)


def _place(peak: "Load") -> tuple[bool, int]:
    """Return what devices are sorted by: GPUs by number, then main memory."""
    kind, _, number = peak.device.partition(":")
    return (False, int(number or 0)) if kind == "cuda" else (True, 0)


def _parts(loads: "Sequence[Load]") -> dict[str, list[int]]:
    """Return for everything that is held, by name, how much of it there is at each moment."""
    found: dict[str, list[int]] = {}
    for place, load in enumerate(loads):
        for occupant, holdings in load.held:
            for each in holdings:
                name = f"{occupant.name.partition(' ')[0].rstrip(',')}: {each.what}"
                found.setdefault(name, [0] * len(loads))[place] += each.bytes
    return found


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}" if size else ""


def _doing(peak: "Load") -> str:
    return {"handing over": "handing weights over"}.get(peak.moment, peak.moment)


def _through(first: str, last: str) -> str:
    return first if first == last else f"{first} to {last}"
