"""Draws the graph as an SVG that needs nothing else: no script, no font, no style sheet.

A column holds the states that were first met at that step. A line is an edge: the thicker, the more often it
was walked; red where its advantage is negative, blue where it is positive. Texts are shortened; whole ones
appear where the mouse rests.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from textwrap import wrap
from xml.sax.saxutils import escape

from agentrl_salt.graph import Arrow, Graph, Node
from agentrl_salt.layout import NODE_HEIGHT, NODE_WIDTH, Layout, Route, arrange

RED, GREY, BLUE, INK, FAINT = (196, 40, 40), (160, 160, 160), (28, 92, 190), "#1c2024", "#6a737d"
MARGIN, HEAD, FOOT = 24.0, 76.0, 24.0
THIN, THICK = 1.4, 8.0
LABEL_CHARACTERS, NODE_CHARACTERS, NODE_LINES = 30, 28, 3
# What a character of 11 pixels takes at most, on average, in the fonts that may be there.
_CHARACTER = 6.5
_LEAST_WIDTH = 760.0
_ENDS = {
    "solved": ("#1a7f37", "\N{CHECK MARK}"),
    "failed": ("#30363d", "\N{MULTIPLICATION X}"),
    "cut off": (FAINT, "…"),
}
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_FONT = "Helvetica, Arial, 'DejaVu Sans', sans-serif"


def draw(graph: Graph, subtitle: str) -> str:
    """Return the picture of a graph; `subtitle` says what it is of."""
    limit = max((abs(arrow.advantage) for arrow in graph.arrows), default=0.0) or 1.0
    layout = arrange(graph, [_label_width(arrow) for arrow in graph.arrows])
    width = max(_LEAST_WIDTH, max(layout.right, default=0.0) + 2 * MARGIN)
    height = HEAD + layout.bottom + FOOT + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="{_FONT}" font-size="11" fill="{INK}">',
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="white"/>',
        *_head(graph, subtitle, limit),
        f'<g transform="translate({MARGIN:.0f} {MARGIN + HEAD:.0f})">',
        *_Drawing(graph, layout, limit).parts(),
        "</g>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


class _Drawing:
    """The nodes and arrows of a graph, laid out."""

    def __init__(self, graph: Graph, layout: Layout, limit: float) -> None:
        self._graph, self._layout, self._limit = graph, layout, limit
        self._thickest = max((arrow.visits for arrow in graph.arrows), default=1)
        self._ports = self._find_ports()

    def parts(self) -> Iterator[str]:
        """Yield lines first, so that texts and boxes lie above them."""
        arrows = list(zip(self._graph.arrows, self._layout.routes, strict=True))
        for number, (arrow, route) in enumerate(arrows):
            yield self._line(number, arrow, route)
        for number, node in enumerate(self._graph.nodes):
            yield from self._box(number, node)
        for arrow, route in arrows:
            yield from self._label(arrow, route)

    def _find_ports(self) -> dict[tuple[int, int, str], float]:
        """Return the height at which each arrow meets its nodes, by (arrow, node, end)."""
        sides: dict[tuple[int, str], list[tuple[float, int, str]]] = defaultdict(list)
        items = self._layout.items
        for number, route in enumerate(self._layout.routes):
            first, second, before, last = route.items[0], route.items[1], route.items[-2], route.items[-1]
            start, end = ("target", "source") if route.kind == "back" else ("source", "target")
            sides[first, "right"].append((items[second].y, number, start))
            side = "right" if route.kind == "hook" else "left"
            sides[last, side].append((items[before].y + 0.1, number, end))
        ports = {}
        for (node, _), ways in sides.items():
            apart = min(12.0, (NODE_HEIGHT - 12) / max(1, len(ways) - 1))
            for place, (_, number, end) in enumerate(sorted(ways)):
                ports[number, node, end] = items[node].y + apart * (place - (len(ways) - 1) / 2)
        return ports

    def _line(self, number: int, arrow: Arrow, route: Route) -> str:
        width = self._width(arrow)
        colour = _colour(arrow.advantage / self._limit)
        tip = 5 + width
        path, (x, y), leftwards = self._path(number, arrow, route, tip)
        dashes = "" if route.kind == "forward" else f' stroke-dasharray="{3 + width:.0f} 3"'
        base, half = (x + tip if leftwards else x - tip), 3 + width / 2
        head = f"M{x:.1f} {y:.1f}L{base:.1f} {y - half:.1f}L{base:.1f} {y + half:.1f}Z"
        who = " ".join(f"t{each}" for each in arrow.trajectories)
        return (
            f'<g class="edge {who}"><title>{_clean(_about_arrow(arrow))}</title>'
            f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width:.1f}"{dashes}/>'
            f'<path d="{head}" fill="{colour}"/></g>'
        )

    def _width(self, arrow: Arrow) -> float:
        return THIN + (THICK - THIN) * (arrow.visits - 1) / max(1, self._thickest - 1)

    def _path(
        self, number: int, arrow: Arrow, route: Route, tip: float
    ) -> tuple[str, tuple[float, float], bool]:
        """Return the line, the point of its arrow-head, and whether that points to the left."""
        source = self._ports[number, arrow.source, "source"]
        target = self._ports[number, arrow.target, "target"]
        left, right, items = self._layout.left, self._layout.right, self._layout.items
        first, last = items[route.items[0]].layer, items[route.items[-1]].layer
        if route.kind == "hook":
            x, y, edge = left[first + 1] + 2, items[route.label].y, right[first]
            line = f"M{edge:.1f} {source:.1f}{_curve(edge, source, x, y - 5)}A5 5 0 0 1 {x:.1f} {y + 5:.1f}"
            return line + _curve(x, y + 5, edge + tip, target), (edge, target), True
        start, end = (target, source) if route.kind == "back" else (source, target)
        leftwards = route.kind == "back"
        x, y = right[first] + (tip if leftwards else 0), start
        line = f"M{x:.1f} {y:.1f}"
        for each in route.items[1:-1]:
            item = items[each]
            line += f"{_curve(x, y, left[item.layer], item.y)}H{right[item.layer]:.1f}"
            x, y = right[item.layer], item.y
        line += _curve(x, y, left[last] - (0 if leftwards else tip), end)
        return line, ((right[first], target) if leftwards else (left[last], target)), leftwards

    def _label(self, arrow: Arrow, route: Route) -> Iterator[str]:
        item = self._layout.items[route.label]
        width = self._width(arrow)
        x = self._layout.left[item.layer] + (14 if route.kind == "hook" else 4)
        above, below = (2, 12) if route.kind == "hook" else (5 + width / 2, 11 + width / 2)
        who = " ".join(f"t{each}" for each in arrow.trajectories)
        yield (
            f'<g class="edge {who}"><title>{_clean(_about_arrow(arrow))}</title>'
            f"{_text(x, item.y - above, _short(arrow.action))}"
            f"{_text(x, item.y + below, _value(arrow), 10, _colour(arrow.advantage / self._limit, 0.8))}</g>"
        )

    def _box(self, number: int, node: Node) -> Iterator[str]:
        item = self._layout.items[number]
        x, y = self._layout.left[item.layer], item.y - NODE_HEIGHT / 2
        stroke = "2.4" if node.column == 0 else "1"
        key = f"\nkey: {node.state_key}" if node.state_key is not None else ""
        lines = wrap(" ".join(node.text.split()), NODE_CHARACTERS, max_lines=NODE_LINES, placeholder=" …")
        yield (
            f"<g><title>{_clean(f'{node.text}{key}' + chr(10) + f'met {node.visits} times')}</title>"
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{NODE_WIDTH:.0f}" height="{NODE_HEIGHT:.0f}" rx="5" '
            f'fill="#f6f8fa" stroke="#57606a" stroke-width="{stroke}"/>'
        )
        for place, line in enumerate(lines):
            yield _text(x + 6, item.y + 3.5 + 13 * (place - (len(lines) - 1) / 2), line, 10)
        yield from _badges(node.ends, x + NODE_WIDTH - 4, y)
        yield "</g>"


def _badges(ends: dict[str, int], right: float, y: float) -> Iterator[str]:
    """Yield how many trajectories ended at a node, by how, on its upper edge."""
    for end in reversed([end for end in _ENDS if ends.get(end)]):
        colour, sign = _ENDS[end]
        text = f"{sign} {ends[end]}"
        width = 12 + 6.5 * len(text)
        right -= width + 2
        shape = f'x="{right:.1f}" y="{y - 8:.1f}" width="{width:.1f}" height="16" rx="8"'
        yield f'<rect {shape} fill="{colour}"/>'
        yield _text(right + 6, y + 4, text, 10.5, "white")


def _head(graph: Graph, subtitle: str, limit: float) -> Iterator[str]:
    """Yield title and legend."""
    solved = sum(path.end == "solved" for path in graph.paths)
    shared = f"{100 * graph.merged_steps:.0f}% of the steps are shared"
    equal = "" if any(path.advantage for path in graph.paths) else "; all rewards are equal"
    title = f"{len(graph.paths)} trajectories of task {graph.task}, {solved} solved; {shared}{equal}"
    yield f'<g font-weight="bold">{_text(MARGIN, MARGIN + 10, title, 15)}</g>'
    yield _text(MARGIN, MARGIN + 28, subtitle, 11, FAINT)
    x, y = MARGIN, MARGIN + 42
    for place in range(-10, 11):
        colour = _colour(place / 10)
        yield f'<rect x="{x + 6 * (place + 10):.0f}" y="{y:.0f}" width="6" height="8" fill="{colour}"/>'
    for place, value in ((0, -limit), (1, 0.0), (2, limit)):
        anchor = ("start", "middle", "end")[place]
        yield _text(x + 63 * place, y + 19, signed(value), 10, anchor=anchor)
    yield _text(x + 136, y + 8, "advantage of the step", 10)
    yield from _signs(x + 270, y + 4)


def _signs(x: float, y: float) -> Iterator[str]:
    """Yield what lines and signs mean."""
    yield f'<path d="M{x:.0f} {y:.0f}h24" stroke="{FAINT}" stroke-width="1.4"/>'
    yield f'<path d="M{x + 28:.0f} {y:.0f}h24" stroke="{FAINT}" stroke-width="8"/>'
    yield _text(x + 58, y + 4, "walked once, most often", 10)
    yield f'<path d="M{x:.0f} {y + 16:.0f}h52" stroke="{FAINT}" stroke-width="1.4" stroke-dasharray="4 3"/>'
    yield _text(x + 58, y + 20, "leads to a state that was met before, or as early", 10)
    x += 290
    for end in _ENDS:
        yield from _badges({end: 1}, x + 34, y)
        yield _text(x + 36, y + 4, end, 10)
        x += 90


def _colour(share: float, darkness: float = 1.0) -> str:
    """Return the colour of an advantage, from -1 (red) by way of 0 (grey) to 1 (blue)."""
    end = BLUE if share >= 0 else RED
    # More than its share, so that red and blue are told apart near 0.
    strength = min(1.0, abs(share)) ** 0.6
    mixed = (grey + strength * (full - grey) for grey, full in zip(GREY, end, strict=True))
    return "#" + "".join(f"{round(darkness * each):02x}" for each in mixed)


def _curve(x: float, y: float, to_x: float, to_y: float) -> str:
    half = (x + to_x) / 2
    return f"C{half:.1f} {y:.1f} {half:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}"


def _label_width(arrow: Arrow) -> float:
    hooked = 10 if arrow.source == arrow.target else 0
    return 10 + 10 + hooked + _CHARACTER * max(len(_short(arrow.action)), len(_value(arrow)))


def _value(arrow: Arrow) -> str:
    times = f" \N{MULTIPLICATION SIGN}{arrow.visits}" if arrow.visits > 1 else ""
    return signed(arrow.advantage) + times


def signed(value: float) -> str:
    """Return an advantage with its sign, in two digits."""
    return "0" if abs(value) < 0.005 else f"{value:+.2f}"


def _about_arrow(arrow: Arrow) -> str:
    who = ", ".join(str(each + 1) for each in arrow.trajectories)
    return (
        f"{arrow.action}\nadvantage {arrow.advantage:+.4f}, walked {arrow.visits} times, by trajectory {who}"
    )


def _short(text: str) -> str:
    """Return a text that fits, with its beginning and its end: actions differ in either."""
    flat = " ".join(text.split()) or "(empty)"
    half = LABEL_CHARACTERS // 2
    return flat if len(flat) <= LABEL_CHARACTERS else f"{flat[: half - 1]}…{flat[-half:]}"


def _text(x: float, y: float, text: str, size: float = 11, colour: str = INK, anchor: str = "start") -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" fill="{colour}" text-anchor="{anchor}"'
    return f"<text {where}>{_clean(text)}</text>"


def _clean(text: str) -> str:
    """Return text as XML takes it: some characters it does not know at all."""
    return escape(_ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", text))
