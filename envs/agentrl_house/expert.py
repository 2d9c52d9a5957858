"""Shows how a house is searched, knowing no more than what has been seen so far.

The expert takes what is asked for where it sees it, opens whatever is closed in the order in which it is
listed, goes on to a room that is still dark, and turns back where there is none; once it has all, it walks to
the hall and puts things down in order. Every action follows from the last observation alone, which is what
makes it possible to imitate; it is not always the shortest way.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from .building import HALL
from .world import World


def search(house: Mapping[str, Any]) -> Iterator[str]:
    """Yield the actions that bring everything that is asked for to the hall.

    They begin with a space, because a tokenizer whose words carry the space before them needs fewer tokens
    then. It means nothing.
    """
    world = World(house)
    while world.wanted:
        verb, noun = _next(world)
        world.act(verb, noun)
        yield f" {verb} {noun}"


def _next(world: World) -> tuple[str, str]:
    if world.room == HALL and world.wanted[0] in world.held:
        return "put", world.wanted[0]
    for thing in world.visible:
        if thing in world.wanted:
            return "take", thing
    if set(world.wanted) <= set(world.held):
        return "go", world.exits[0]
    if world.closed:
        return "open", world.closed[0]
    return "go", (world.dark or world.exits)[0]
