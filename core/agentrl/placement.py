"""What sits where in a run, how much memory it takes, and whether that fits: known before anything starts.

Engine and trainer say themselves what they take (`Engine.footprint`, `Trainer.footprint`); here it is added
up for each device and moment, and compared with what there is (`hardware`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from agentrl import plugins
from agentrl.assembly import check_needs, model_path, resources
from agentrl.config import RunConfig
from agentrl.footprint import MAIN_MEMORY, Footprint, Holding, Load, Occupant, Workload, loads, peak
from agentrl.hardware import GIB, Hardware, here
from agentrl.hosting.elsewhere import RemoteEnv

Verdict = Literal["fits", "tight", "too much", "no such device", "not known"]
# The share of a device that estimates may fill before they are called tight: libraries take their part.
_COMFORTABLE = 0.9


@dataclass(frozen=True, slots=True)
class Seat:
    """Something that works, and where: how many processes, on which device, with how many threads each."""

    name: str
    process: str
    device: str
    threads: str


@dataclass(frozen=True, slots=True)
class Placement:
    """All seats of a run, and what all devices hold.

    Attributes:
        seats: in the order of the data's way.
        loads: of each device, one for each moment.
        silent: engine or trainer, where they do not say what they take.
        assumed: what the estimates rest on.
        remedies: options that save memory.
        hardware: what there is.
        colocated: whether engine N is on the GPU of rank N, as far as there are both.
    """

    seats: Sequence[Seat]
    loads: Mapping[str, Sequence[Load]]
    silent: Sequence[str]
    assumed: Sequence[str]
    remedies: Sequence[str]
    hardware: Hardware
    colocated: bool = True

    @property
    def peaks(self) -> list[Load]:
        """Return the largest load of each device."""
        return [peak(each) for each in self.loads.values()]

    def room(self, device: str) -> int | None:
        """Return the bytes that a device has; None if nobody knows, 0 if there is no such device."""
        if not device.startswith("cuda"):
            return self.hardware.memory
        gpus, number = self.hardware.gpus, int(device.partition(":")[2] or 0)
        return None if gpus is None else gpus[number] if number < len(gpus) else 0

    def verdict(self, load: Load) -> Verdict:
        """Return whether what a device has to hold fits."""
        room = self.room(load.device)
        if room is None:
            return "not known"
        if room == 0:
            return "no such device"
        if load.bytes > room:
            return "too much"
        return "fits" if load.bytes <= _COMFORTABLE * room else "tight"

    def shortage(self) -> str | None:
        """Return what there is not enough of, and what helps; None if everything fits, as far as is known."""
        for load in self.peaks:
            verdict, room = self.verdict(load), (self.room(load.device) or 0) / GIB
            if verdict == "no such device":
                return (
                    f"the run wants {load.device}, and there is none: {self.hardware}; lower trainer.ranks "
                    "or engine.engines, or set device"
                )
            if verdict == "too much":
                holder = load.device.replace(MAIN_MEMORY, "main memory")
                return (
                    f"{holder} would have to hold {load.bytes / GIB:.1f} GiB while {load.doing} and has "
                    f"{room:.1f}; what saves memory: {'; '.join(self.remedies)}"
                )
        return None


def place(config: RunConfig, hardware: Hardware) -> Placement:
    """Return where everything of a run would be.

    Raises:
        UsageError: the parts of the run do not fit together, or nothing is known of its model.
    """
    algorithm = plugins.make("algorithm", config.algorithm.name, config.algorithm.options)
    trainer = plugins.make("trainer", config.trainer.name, config.trainer.options)
    engine = plugins.make("engine", config.engine.name, config.engine.options)
    env = plugins.load("env", config.env.name)
    needs = check_needs(algorithm, trainer, env, config)
    model, work, given = model_path(config), workload(config, hardware), resources(config)
    runtime = plugins.make("runtime", config.runtime.name, config.runtime.options)
    of_trainer, of_engine = trainer.footprint(model, needs, given, work), engine.footprint(model, given, work)
    if of_engine and of_trainer and not runtime.colocates:
        of_engine = _apart(of_engine, of_trainer)
    told: dict[str, Footprint | None] = {
        f"engine {config.engine.name!r}": of_engine,
        f"trainer {config.trainer.name!r}": of_trainer,
    }
    found = [footprint for footprint in told.values() if footprint]
    occupants = [_housed(each, hardware) for footprint in found for each in footprint.occupants]
    return Placement(
        seats=[*_around(config), *(_seat(each) for each in occupants)],
        loads=loads(occupants, overlapping=config.staleness > 0),
        silent=[name for name, footprint in told.items() if footprint is None],
        assumed=[each for footprint in found for each in footprint.assumed],
        remedies=[each for footprint in reversed(found) for each in footprint.remedies],
        hardware=hardware,
        colocated=runtime.colocates,
    )


def place_here(config: RunConfig) -> Placement:
    """Return where everything of a run will be that begins now; what other machines have is not known.

    Raises:
        UsageError: see `place`.
    """
    return place(config, here() if config.runtime.name == "local" else Hardware(None, None))


def workload(config: RunConfig, hardware: Hardware | None = None) -> Workload:
    """Return how much the run asks for at once."""
    update = config.tasks_per_step * config.group_size * (config.staleness + 1)
    wanted = max(update, config.evaluation.tasks * config.evaluation.repeats)
    known = hardware.gpus if hardware else None
    return Workload(
        episodes=min(wanted, side_by_side(config)),
        group_size=config.group_size,
        tokens=longest_episode(config),
        device_memory=min(known) if known else None,
    )


def longest_episode(config: RunConfig) -> int:
    """Return the tokens of the longest episode, if the model's context allows it.

    How long the env's answers get nobody knows; where the user has not said, as long as the model's.
    """
    simulator = config.simulator
    sampled = simulator.max_turns * simulator.max_new_tokens
    return config.episode_tokens or 2 * min(sampled, simulator.max_tokens or sampled)


def side_by_side(config: RunConfig) -> int:
    """Return how many episodes may be played side by side."""
    simulator, env = config.simulator, plugins.load("env", config.env.name)
    most = env.environment.episodes if issubclass(env, RemoteEnv) else simulator.concurrency
    return min(simulator.concurrency, simulator.workers or most)


def _around(config: RunConfig) -> list[Seat]:
    """Return the seats of what is neither engine nor trainer."""
    name, env, count = config.env.name, plugins.load("env", config.env.name), side_by_side(config)
    if issubclass(env, RemoteEnv):
        process = f"{count} in the env's own environment"
    elif config.simulator.workers:
        process = f"{count} workers"
    else:
        process = f"main, up to {count:,} side by side"
    return [
        Seat("run: simulator, curriculum, hooks", "main", MAIN_MEMORY, "1"),
        Seat(f"envs: {name}", process, MAIN_MEMORY, "1"),
        Seat(f"rewards: {', '.join(config.rewards)}", "main", MAIN_MEMORY, "1"),
    ]


def _seat(occupant: Occupant) -> Seat:
    return Seat(occupant.name, occupant.process, occupant.device, str(occupant.threads))


def _apart(engine: Footprint, trainer: Footprint) -> Footprint:
    """Return an engine's part with its processes on the GPUs that come after the trainer's."""
    taken = len({each.device for each in trainer.occupants if each.device != MAIN_MEMORY})

    def moved(occupant: Occupant) -> Occupant:
        if occupant.process == "main" or occupant.device == MAIN_MEMORY:
            return occupant
        kind, _, number = occupant.device.partition(":")
        return replace(occupant, device=f"{kind}:{int(number or 0) + taken}")

    return replace(engine, occupants=tuple(map(moved, engine.occupants)))


def _housed(occupant: Occupant, hardware: Hardware) -> Occupant:
    """Return an occupant whose main memory is that of its machine, where there are several."""
    if hardware.machines == 1:
        return occupant
    number = int(occupant.device.partition(":")[2] or 0)
    own = f"{MAIN_MEMORY}, machine {number // max(1, hardware.each) + 1}"

    def housed(holding: Holding) -> Holding:
        return replace(holding, device=own) if holding.device == MAIN_MEMORY else holding

    device = own if occupant.device == MAIN_MEMORY else occupant.device
    return replace(occupant, device=device, holdings=tuple(map(housed, occupant.holdings)))
