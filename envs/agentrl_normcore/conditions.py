"""What can make a page hard to use: named profiles, and what one episode draws from them by its seed.

Each condition is on or off in an episode, by chance, so that one can tell afterwards which of them broke
what. Times are milliseconds of the page's clock.
"""

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from agentrl.errors import UsageError

Fault = Literal["", "refused", "lost"]

# An answer never fails more than this often in a row, so that trying again helps.
MOST_FAULTS = 2


@dataclass(frozen=True, slots=True)
class Profile:
    """How hard pages are made.

    Attributes:
        share: the chance of each condition to be on; those whose number is zero never are.
        latency_ms: mean delay of the backend's answers.
        refused: the chance that the backend refuses a request for no reason, and does nothing.
        lost: the chance that it does what it was asked to and the answer never arrives.
        redraws: how often the page draws itself anew, unasked, at most.
        slips: how many clicks are lost to a redraw between pressing and releasing the button, at most.
        popups: how many dialogs come over the page, at most.
        shifts: how often a control moves away as the pointer arrives, at most.
        zooms: magnifications of the page.
        scaffold_ms: how long the page stands without contents, at most.
    """

    name: str
    share: float = 0.0
    latency_ms: int = 0
    refused: float = 0.0
    lost: float = 0.0
    redraws: int = 0
    slips: int = 0
    popups: int = 0
    shifts: int = 0
    zooms: tuple[float, ...] = ()
    scaffold_ms: int = 0


PROFILES: Mapping[str, Profile] = {
    each.name: each
    for each in (
        Profile("calm"),
        Profile(
            "shifting",
            share=0.4,
            latency_ms=300,
            refused=0.2,
            redraws=2,
            slips=1,
            popups=1,
            shifts=1,
            zooms=(0.8, 1.25),
            scaffold_ms=1500,
        ),
        Profile(
            "hostile",
            share=0.7,
            latency_ms=900,
            refused=0.3,
            lost=0.3,
            redraws=5,
            slips=3,
            popups=3,
            shifts=2,
            zooms=(0.5, 0.75, 1.5),
            scaffold_ms=4000,
        ),
    )
}


def profile_named(name: str) -> Profile:
    """Return a profile.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in PROFILES:
        raise UsageError(f"no profile {name!r}: there is {', '.join(PROFILES)}")
    return PROFILES[name]


@dataclass(frozen=True, slots=True)
class Conditions:
    """What one episode drew.

    Attributes:
        seed: of the backend's delays and faults.
        redraws: when the page draws itself anew.
        slips: which presses of the pointer are lost, counted from 0.
        popups: when dialogs come.
        shifts: how many arrivals of the pointer move a control.
    """

    seed: int = 0
    latency_ms: int = 0
    refused: float = 0.0
    lost: float = 0.0
    redraws: tuple[int, ...] = ()
    slips: tuple[int, ...] = ()
    popups: tuple[int, ...] = ()
    shifts: int = 0
    zoom: float = 1.0
    scaffold_ms: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Return which conditions are on."""
        plain = asdict(Conditions(seed=self.seed))
        names = {"latency_ms": "latency", "scaffold_ms": "scaffold"}
        return tuple(names.get(name, name) for name, value in asdict(self).items() if value != plain[name])

    def for_page(self) -> dict[str, Any]:
        """Return what the page has to know, JSON-safe."""
        return {
            "redraws": list(self.redraws),
            "slips": list(self.slips),
            "popups": list(self.popups),
            "shifts": self.shifts,
            "zoom": self.zoom,
            "scaffold": self.scaffold_ms,
        }


def draw(profile: Profile, seed: str) -> Conditions:
    """Return the conditions of the episode that `seed` names."""
    chance = random.Random(f"conditions/{profile.name}/{seed}")

    def on(value: Any) -> bool:
        # Always draws, so that one condition does not depend on whether a profile has another.
        return chance.random() < profile.share and bool(value)

    return Conditions(
        seed=chance.getrandbits(32),
        latency_ms=profile.latency_ms if on(profile.latency_ms) else 0,
        refused=profile.refused if on(profile.refused) else 0.0,
        lost=profile.lost if on(profile.lost) else 0.0,
        redraws=_times(chance, profile.redraws) if on(profile.redraws) else (),
        slips=_numbers(chance, profile.slips) if on(profile.slips) else (),
        popups=_times(chance, profile.popups) if on(profile.popups) else (),
        shifts=chance.randint(1, profile.shifts) if on(profile.shifts) else 0,
        zoom=chance.choice(profile.zooms) if on(profile.zooms) else 1.0,
        scaffold_ms=chance.randint(300, profile.scaffold_ms) if on(profile.scaffold_ms) else 0,
    )


def _times(chance: random.Random, most: int) -> tuple[int, ...]:
    """Return when something happens: once soon, for episodes may be short, then at any time."""
    later = [chance.randint(1500, 8000) for _ in range(chance.randint(0, most - 1))]
    return tuple(sorted([chance.randint(200, 1500), *later]))


def _numbers(chance: random.Random, most: int) -> tuple[int, ...]:
    return tuple(sorted(chance.sample(range(4), chance.randint(1, most))))


@dataclass(slots=True)
class Weather:
    """Says how the next answer of the backend fares. Each path has a course of its own.

    So what happens to a request depends on how many of its kind came before, not on what else is under way.
    """

    conditions: Conditions
    _asked: dict[str, int] = field(default_factory=dict)
    _failed: dict[str, int] = field(default_factory=dict)

    def next(self, path: str, writes: bool) -> tuple[int, Fault]:
        """Return the delay of the next answer at `path`, and what befalls it."""
        number = self._asked[path] = self._asked.get(path, 0) + 1
        chance = random.Random(f"{self.conditions.seed}/{path}/{number}")
        delay = int(min(chance.expovariate(1.0), 3.0) * self.conditions.latency_ms)
        fault = self._fault(chance.random(), chance.random(), writes)
        if fault and self._failed.get(path, 0) >= MOST_FAULTS:
            fault = ""
        self._failed[path] = self._failed.get(path, 0) + 1 if fault else 0
        return delay, fault

    def state(self) -> list[dict[str, int]]:
        """Return what the answers to come depend on, JSON-safe."""
        return [self._asked, self._failed]

    def _fault(self, one: float, other: float, writes: bool) -> Fault:
        if one < self.conditions.refused:
            return "refused"
        return "lost" if writes and other < self.conditions.lost else ""
