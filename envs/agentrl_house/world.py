"""The rules of the house: what can be done, what is seen, and which states are the same."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

from .building import HALL


class World:
    """A house in the course of an episode."""

    def __init__(self, house: Mapping[str, Any]) -> None:
        """Stand in the hall, empty-handed; every container is closed."""
        rooms = house["rooms"]
        self.goal: Sequence[str] = house["goal"]
        self.room = HALL
        self._exits: dict[str, Sequence[str]] = {room["name"]: room["exits"] for room in rooms}
        self._closed: dict[str, dict[str, str | None]] = {
            room["name"]: dict(room["containers"]) for room in rooms
        }
        self._lying: dict[str, list[str]] = {room["name"]: [] for room in rooms}
        self._held: set[str] = set()
        self._visited = {HALL}

    # What is seen

    @property
    def exits(self) -> Sequence[str]:
        """Return the neighbouring rooms; the first one leads to the hall."""
        return self._exits[self.room]

    @property
    def dark(self) -> list[str]:
        """Return the neighbouring rooms in which no one has been yet."""
        return [room for room in self.exits if room not in self._visited]

    @property
    def closed(self) -> list[str]:
        """Return the containers of the room that no one has opened yet."""
        return list(self._closed[self.room])

    @property
    def visible(self) -> list[str]:
        """Return what can be taken in the room."""
        return self._lying_in(self.room)

    @property
    def held(self) -> list[str]:
        """Return what is carried."""
        return sorted(self._held)

    @property
    def delivered(self) -> list[str]:
        """Return what has been brought: the longest beginning of the goal that lies in the hall in order."""
        pairs = zip(self._lying_in(HALL), self.goal, strict=False)
        return [thing for thing, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]

    @property
    def wanted(self) -> list[str]:
        """Return what is still to be brought, in order."""
        return list(self.goal[len(self.delivered) :])

    def _lying_in(self, room: str) -> list[str]:
        """Return what lies in a room; in the hall, first what is asked for, in the order it was put there."""
        # Nowhere else the order makes a difference, so there it must not make another state.
        ordered = [thing for thing in self._lying[room] if room == HALL and thing in self.goal]
        return [*ordered, *sorted(set(self._lying[room]) - set(ordered))]

    def describe(self) -> str:
        """Return what the agent sees: nothing that is not in the state, so equal states look the same."""
        return " ".join(f"{what} {', '.join(things)}." for what, things in self._sight() if things)

    def _sight(self) -> Iterator[tuple[str, Sequence[str]]]:
        """Yield what is said, and of which things. Each heading leads to things of one kind."""
        yield "In", [self.room]
        yield "Closed", self.closed
        yield "There is", self.visible
        yield "Exits", [f"dark {room}" if room in self.dark else room for room in self.exits]
        yield "You have", self.held
        yield "Goal", self.wanted

    @property
    def state(self) -> list[Any]:
        """Return all that the future depends on, JSON-safe, each state in one form only."""
        return [
            self.room,
            self.held,
            sorted(self._visited),
            [[room, sorted(closed)] for room, closed in self._closed.items()],
            [[room, self._lying_in(room)] for room in self._lying],
        ]

    # What can be done

    def act(self, verb: str, noun: str) -> bool:
        """Do something; False if it cannot be done here, which changes nothing."""
        match verb:
            case "go":
                return self._go(noun)
            case "open":
                return self._open(noun)
            case "take":
                return self._take(noun)
            case "put":
                return self._put(noun)
        return False

    def _go(self, room: str) -> bool:
        if room not in self.exits:
            return False
        self.room = room
        self._visited.add(room)
        return True

    def _open(self, container: str) -> bool:
        """Open a container; what it held lies in the room from now on."""
        if container not in self.closed:
            return False
        thing = self._closed[self.room].pop(container)
        self._lying[self.room] += [thing] if thing else []
        return True

    def _take(self, thing: str) -> bool:
        if thing not in self.visible:
            return False
        self._lying[self.room].remove(thing)
        self._held.add(thing)
        return True

    def _put(self, thing: str) -> bool:
        if thing not in self._held:
            return False
        self._held.remove(thing)
        self._lying[self.room].append(thing)
        return True


VERBS = ("go", "open", "take", "put")
# Words that change nothing, for agents that speak in sentences.
_FILLERS = frozenset({"a", "an", "the", "to", "down", "up", "i"})


def understand(text: str) -> tuple[str, str] | None:
    """Return verb and noun of the action that the last line of `text` is, None if it is none."""
    lines = text.strip().splitlines() or [""]
    words = (word.strip(".,:;!?\"'`*<>") for word in lines[-1][:100].lower().split())
    match [word for word in words if word not in _FILLERS]:
        case [verb, noun] if verb in VERBS:
            return verb, noun
    return None
