"""How much memory the parts of a run take, as engines and trainers say it before anything is loaded.

A footprint is made of occupants: what one process of an engine or trainer holds on one device. It holds some
of it all the time, and some only at certain moments: while models are loaded, while episodes are played,
while the trainer learns, or while new weights go to the engine. What a device has to have room for is the
most that is held at one moment. All sizes are bytes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agentrl.errors import UsageError, first_line

# "always" is from the start on; "afterwards" is from when models are loaded, and optimizers have begun, on.
Moment = Literal["always", "afterwards", "loading", "playing", "learning", "handing over"]
MOMENTS: tuple[Moment, ...] = ("loading", "playing", "learning", "handing over")
# The main memory of the machine, as a device: what is on the CPU is there.
MAIN_MEMORY = "cpu"


@dataclass(frozen=True, slots=True)
class Workload:
    """How much a run asks for at once, as far as its configuration says.

    Attributes:
        episodes: that are played side by side at most.
        group_size: trajectories of a task, which an update computes together.
        tokens: of the longest episode, if the model's context is that long.
        device_memory: bytes that the device has, each of them if there are several; None if nobody knows.
    """

    episodes: int
    group_size: int
    tokens: int
    device_memory: int | None = None


@dataclass(frozen=True, slots=True)
class Holding:
    """Something that takes memory at some moment.

    Attributes:
        what: the name of it.
        bytes: that it takes.
        moment: when.
        device: where, if not where its occupant computes.
        shared: whether all who hold it on a device have it between them.
    """

    what: str
    bytes: int
    moment: Moment = "always"
    device: str | None = None
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Occupant:
    """What one process of an engine or trainer holds.

    Attributes:
        name: what it is, such as "trainer, rank 0".
        process: where it runs: "main", or "its own".
        device: "cpu", or "cuda:N", counted through all machines of the run.
        threads: of torch; 0 where a GPU computes.
        holdings: what it holds.
    """

    name: str
    process: str
    device: str
    threads: int
    holdings: tuple[Holding, ...]

    def at(self, device: str, moment: Moment) -> list[Holding]:
        """Return the holdings on `device` at `moment`."""
        now = {"always", moment} if moment == "loading" else {"always", "afterwards", moment}
        return [
            each
            for each in self.holdings
            if (each.device or self.device) == device and each.moment in now and each.bytes
        ]

    def devices(self) -> list[str]:
        """Return where it holds something."""
        return list(dict.fromkeys([self.device, *(each.device or self.device for each in self.holdings)]))


@dataclass(frozen=True, slots=True)
class Footprint:
    """What an engine or a trainer takes.

    Attributes:
        occupants: one for each process.
        remedies: options of its that save memory, the most effective first, such as
            "trainer.gradient_checkpointing=true: activations are computed twice".
        assumed: what the estimate rests on, in words.
    """

    occupants: tuple[Occupant, ...]
    remedies: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Load:
    """What a device holds at a moment, by occupant."""

    device: str
    moment: Moment
    held: tuple[tuple[Occupant, tuple[Holding, ...]], ...]

    @property
    def bytes(self) -> int:
        """Return how much that is."""
        return sum(each.bytes for _, holdings in self.held for each in holdings)

    @property
    def doing(self) -> str:
        """Return what the run does at that moment."""
        return {"handing over": "handing weights over"}.get(self.moment, self.moment)


def loads(occupants: Iterable[Occupant], *, overlapping: bool) -> dict[str, list[Load]]:
    """Return the loads of each device, one for each moment.

    If `overlapping`, episodes are played while the trainer learns.
    """
    everybody = list(occupants)
    devices = dict.fromkeys(device for each in everybody for device in each.devices())
    return {
        device: [_at(everybody, device, moment, overlapping=overlapping) for moment in MOMENTS]
        for device in devices
    }


def peak(loads: Iterable[Load]) -> Load:
    """Return the largest."""
    return max(loads, key=lambda load: load.bytes)


def _at(occupants: Iterable[Occupant], device: str, moment: Moment, *, overlapping: bool) -> Load:
    held: list[tuple[Occupant, tuple[Holding, ...]]] = []
    for each in occupants:
        holdings = each.at(device, moment)
        if overlapping and moment == "learning":
            holdings += [one for one in each.at(device, "playing") if one.moment == "playing"]
        known = {one for _, earlier in held for one in earlier if one.shared}
        holdings = [one for one in holdings if one not in known]
        if holdings:
            held.append((each, tuple(holdings)))
    return Load(device, moment, tuple(held))


def unknown_model(model: Path | str, error: Exception) -> UsageError:
    """Return what to raise where the config of a model cannot be read because of `error`."""
    return UsageError(
        f"nothing is known of the model {str(model)!r}, for its config cannot be read "
        f"({first_line(error).rstrip(' :')}); give --model a folder with its config.json and tokenizer, or "
        "download it first"
    )


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What an update took that was only tried out (see `Trainer.rehearse`).

    Attributes:
        device: where.
        tokens: unique tokens that were computed at once.
        before: bytes that were held before.
        peak: the most that was held.
        room: bytes that could have been; 0 if nobody knows.
    """

    device: str
    tokens: int
    before: int
    peak: int
    room: int

    def budget(self, share: float = 0.9) -> int | None:
        """Return how many tokens at once would fill this share of the room; None if it cannot be told.

        Everything that came on top is taken to grow with the tokens, so it is rather too few.
        """
        each = (self.peak - self.before) / self.tokens
        return int((share * self.room - self.before) / each) if each > 0 and self.room else None
