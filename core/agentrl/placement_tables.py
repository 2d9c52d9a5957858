"""How a placement is shown: what sits where, and what devices hold."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

from agentrl.footprint import MOMENTS, Load
from agentrl.hardware import GIB

if TYPE_CHECKING:
    from agentrl.placement import Placement, Seat

# Least that is shown of what a device holds, GiB.
_CRUMBS = 0.005


def seats_table(seats: "Sequence[Seat]") -> Table:
    """Return the table of what sits where; what is numbered and otherwise alike is one row."""
    table = Table("what", "process", "device", "threads", box=box.SIMPLE)
    alike = groupby(seats, lambda seat: (seat.name.rstrip("0123456789"), seat.process, seat.threads))
    for (_, process, threads), some in alike:
        first, *rest = some
        last = rest[-1] if rest else first
        name = first.name if last is first else f"{first.name} to {last.name.rpartition(' ')[2]}"
        table.add_row(escape(name), process, _through(first.device, last.device), threads)
    return table


def devices_table(placement: "Placement") -> Table:
    """Return the table of what devices hold, moment by moment; those that are alike are shown once."""
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


def device_lines(placement: "Placement") -> Iterator[str]:
    """Yield for each device, or some that are alike, the most that it has to hold, and when."""
    for some in _alike(placement):
        peak, room = some[0], placement.room(some[0].device)
        of = f" of {room / GIB:.1f}" if room else ""
        device = _through(peak.device, some[-1].device)
        yield f"{device} is to hold up to {peak.bytes / GIB:.2f}{of} GiB, the most while {peak.doing}"


def _alike(placement: "Placement") -> Iterator[list[Load]]:
    """Yield the peaks by device, those of devices that follow one another and hold the same together."""

    def key(peak: Load) -> object:
        kind = peak.device.partition(":")[0]
        sizes = tuple(load.bytes for load in placement.loads[peak.device])
        return kind, sizes, placement.room(peak.device)

    devices = sorted(placement.peaks, key=_place)
    for _, some in groupby(devices, key):
        yield list(some)


def _place(peak: Load) -> tuple[bool, int]:
    """Return what devices are sorted by: GPUs by number, then main memory."""
    kind, _, number = peak.device.partition(":")
    return (False, int(number or 0)) if kind == "cuda" else (True, 0)


def _parts(loads: Sequence[Load]) -> dict[str, list[int]]:
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


def _through(first: str, last: str) -> str:
    return first if first == last else f"{first} to {last}"
