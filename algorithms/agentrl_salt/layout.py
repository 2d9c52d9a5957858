"""Finds a place for everything in a picture of the graph, so that nothing lies on anything else.

Sugiyama et al. 1981, "Methods for visual understanding of hierarchical system structures": what is drawn is
put in layers from left to right, ordered within its layer so that lines cross little, and moved up and down
so that lines are straight. Even layers hold the nodes of a column, odd ones what is written on arrows. An
arrow that passes a layer has a bend in it, so that no line runs through a box. Our own, because Graphviz
needs a binary that pip cannot install.

Lengths are pixels.
"""

from bisect import bisect_right, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean
from typing import Literal

from agentrl_salt.graph import Graph

NODE_WIDTH, NODE_HEIGHT = 164.0, 50.0
LABEL_HEIGHT, BEND_HEIGHT = 32.0, 8.0
# Room between things above one another, and between layers: the more, the steeper the lines are there.
SPACE, LEAST_GAP, MOST_GAP, STEEPNESS = 12.0, 34.0, 110.0, 0.22
_SWEEPS = 24


@dataclass(slots=True)
class Item:
    """A node, a label or a bend: where it is, and what it is joined to in the layers beside it.

    Attributes:
        layer: from the left, 0 for the first column of nodes.
        height: that it takes up.
        y: of its middle.
        before: the items in the layer before that it is joined to.
        after: those in the layer after.
    """

    layer: int
    height: float
    y: float = 0.0
    before: list[int] = field(default_factory=list)
    after: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Route:
    """How an arrow runs.

    Attributes:
        kind: "forward" to a later column; "back" to an earlier one; "hook" within its column, by way of its
            label in the layer after it.
        items: by which it passes, from left to right, both its nodes included; of a hook, its label between.
        label: the item on which its text is written.
    """

    kind: Literal["forward", "back", "hook"]
    items: tuple[int, ...]
    label: int


@dataclass(slots=True)
class Layout:
    """Where everything is.

    Attributes:
        items: nodes first, as they are numbered in the graph; then labels and bends.
        routes: of the arrows, as they are numbered in the graph.
        left: of each layer.
        right: of each layer.
    """

    items: list[Item] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    left: list[float] = field(default_factory=list)
    right: list[float] = field(default_factory=list)

    @property
    def bottom(self) -> float:
        """Return the lowest point of any item; the highest is 0."""
        return max((item.y + item.height / 2 for item in self.items), default=0.0)


def arrange(graph: Graph, label_widths: Sequence[float]) -> Layout:
    """Return a layout of `graph`, whose arrows have texts of these widths."""
    layout = Layout([Item(2 * node.column, NODE_HEIGHT) for node in graph.nodes])
    for arrow in graph.arrows:
        layout.routes.append(_route(layout.items, arrow.source, arrow.target))
    layers = _layers(layout.items)
    _order(layout.items, layers)
    _straighten(layout.items, layers)
    _place_layers(layout, layers, label_widths)
    return layout


def _route(items: list[Item], source: int, target: int) -> Route:
    """Return the route of an arrow, with new items for its label and bends."""
    start, end = items[source].layer, items[target].layer
    if start == end:
        label = _add(items, start + 1, LABEL_HEIGHT)
        _join(items, source, label)
        _join(items, target, label)
        return Route("hook", (source, label, target), label)
    left, right = sorted((source, target), key=lambda number: items[number].layer)
    at = start + 1 if start < end else start - 1
    passed = range(items[left].layer + 1, items[right].layer)
    made = {layer: _add(items, layer, LABEL_HEIGHT if layer == at else BEND_HEIGHT) for layer in passed}
    chain = (left, *made.values(), right)
    for one, other in pairwise(chain):
        _join(items, one, other)
    return Route("forward" if start < end else "back", chain, made[at])


def _add(items: list[Item], layer: int, height: float) -> int:
    items.append(Item(layer, height))
    return len(items) - 1


def _join(items: list[Item], left: int, right: int) -> None:
    items[left].after.append(right)
    items[right].before.append(left)


def _layers(items: list[Item]) -> list[list[int]]:
    layers: list[list[int]] = [[] for _ in range(1 + max((item.layer for item in items), default=0))]
    for number, item in enumerate(items):
        layers[item.layer].append(number)
    for layer in layers:
        _put(items, layer, [0.0] * len(layer))
    return layers


def _order(items: list[Item], layers: list[list[int]]) -> None:
    """Sort each layer so that lines cross little: sweep to and fro, and keep the best that was found."""
    best, fewest = [list(layer) for layer in layers], _crossings(items, layers)
    for sweep in range(_SWEEPS):
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            wanted = _wanted(items, layer, "before" if sweep % 2 == 0 else "after")
            order = sorted(range(len(layer)), key=wanted.__getitem__)
            layer[:] = [layer[place] for place in order]
            _put(items, layer, [wanted[place] for place in order])
        crossings = _crossings(items, layers)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in layers], crossings
    for layer, kept in zip(layers, best, strict=True):
        layer[:] = kept


def _straighten(items: list[Item], layers: list[list[int]]) -> None:
    """Move items up and down without changing their order, then all so that the highest point is 0."""
    sides = ("before", "after", "both") * (_SWEEPS // 3)
    for side in sides:
        for layer in reversed(layers) if side == "after" else layers:
            _put(items, layer, _wanted(items, layer, side))
    top = min((item.y - item.height / 2 for item in items), default=0.0)
    for item in items:
        item.y -= top


def _wanted(items: list[Item], layer: list[int], side: str) -> list[float]:
    """Return where each item of a layer has straight lines; where it is if it has none on that side."""
    found = []
    for number in layer:
        item = items[number]
        joined = {"before": item.before, "after": item.after, "both": item.before + item.after}[side]
        found.append(fmean(items[each].y for each in joined) if joined else item.y)
    return found


def _put(items: list[Item], layer: list[int], wanted: list[float]) -> None:
    """Put items as near as they can be, in the least squares, to where they are wanted: in order, apart."""
    offsets, reach = [], 0.0
    for place, number in enumerate(layer):
        if place:
            reach += SPACE + (items[layer[place - 1]].height + items[number].height) / 2
        offsets.append(reach)
    shifts = _rising([y - offset for y, offset in zip(wanted, offsets, strict=True)])
    for number, offset, shift in zip(layer, offsets, shifts, strict=True):
        items[number].y = offset + shift


def _rising(values: list[float]) -> list[float]:
    """Return the numbers that never fall and are nearest to `values`: where these fall, pool them."""
    pools: list[tuple[float, int]] = []
    for value in values:
        pools.append((value, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (one, many), (other, more) = pools[-2:]
            pools[-2:] = [((one * many + other * more) / (many + more), many + more)]
    return [value for value, count in pools for _ in range(count)]


def _crossings(items: list[Item], layers: list[list[int]]) -> int:
    """Return how many pairs of lines cross."""
    rank = {number: place for layer in layers for place, number in enumerate(layer)}
    total = 0
    for layer in layers:
        passed: list[int] = []
        for _, end in sorted((rank[one], rank[other]) for one in layer for other in items[one].after):
            total += len(passed) - bisect_right(passed, end)
            insort(passed, end)
    return total


def _place_layers(layout: Layout, layers: list[list[int]], label_widths: Sequence[float]) -> None:
    """Give each layer the width of what is in it, and the lines room to climb between layers."""
    widths = [NODE_WIDTH if number % 2 == 0 else 0.0 for number in range(len(layers))]
    for route, width in zip(layout.routes, label_widths, strict=True):
        layer = layout.items[route.label].layer
        widths[layer] = max(widths[layer], width)
    x = 0.0
    for number, width in enumerate(widths):
        layout.left.append(x)
        layout.right.append(x + width)
        climbs = _climbs(layout.items, layers[number])
        x += width + min(max(LEAST_GAP, STEEPNESS * max(climbs, default=0.0)), MOST_GAP)


def _climbs(items: list[Item], layer: list[int]) -> Iterator[float]:
    for one in layer:
        yield from (abs(items[one].y - items[other].y) for other in items[one].after)
