"""Does in a page what an action says. What cannot be done is an error in words, not an exception."""

from dataclasses import dataclass
from typing import Any

from .actions import Call
from .keys import NoSuchKey, strokes
from .page import Page
from .reading import View

DRAG_STEPS = 4
LONGEST_WAIT_MS = 60_000
CLIPBOARD = {
    f"{held}+{key}": what
    for held in ("Control", "Ctrl", "Meta")
    for key, what in (("c", "copy"), ("x", "cut"), ("v", "paste"), ("Insert", "copy"))
} | {"Shift+Insert": "paste", "Shift+Delete": "cut"}


@dataclass(frozen=True, slots=True)
class Performed:
    """How an action went: `error` is "" if it was done; `key` says what was done, whatever the bids."""

    error: str
    key: str


async def perform(page: Page, call: Call, seen: str) -> Performed:
    """Do `call` in `page`; its effects are seen once time has passed.

    Args:
        page: where.
        call: what; its elements may be called by what `seen` calls them.
        seen: the newest observation.
    """
    try:
        arguments = {**call.arguments, **_bids(call, seen)}
    except LookupError as error:
        return Performed(str(error), _key(call))
    match call.name:
        case "click" | "dblclick" | "hover":
            return await _point(page, call, arguments["bid"])
        case "fill" | "clear":
            return await _walk(page, call, "fill", arguments["bid"], arguments.get("value", ""))
        case "focus":
            return await _walk(page, call, "focus", arguments["bid"])
        case "select_option":
            return await _walk(page, call, "select", arguments["bid"], arguments["options"])
        case "scroll":
            deltas = (arguments["delta_x"], arguments["delta_y"])
            return await _walk(page, call, "scroll", arguments["bid"], *deltas)
        case "press":
            return await _press(page, call, arguments["bid"], arguments["key_comb"])
        case "drag_and_drop":
            return await _drag(page, call, arguments["from_bid"], arguments["to_bid"])
    return Performed("", _key(call))


def _bids(call: Call, seen: str) -> dict[str, str]:
    if all(target.isdecimal() for target in call.targets.values()):
        return dict(call.targets)
    view = View.of(seen)
    return {name: view.meant(target) for name, target in call.targets.items()}


def _key(call: Call, *whats: str) -> str:
    """Return the call with what its bids stand for in their place."""
    names = iter(whats)
    said = [
        (next(names, "") or repr(value)) if name in call.targets else repr(value)
        for name, value in call.arguments.items()
        if value != ""
    ]
    return f"{call.name}({', '.join(said)})"


async def _walk(page: Page, call: Call, function: str, *arguments: Any) -> Performed:
    found = await page.walk("act", function, *arguments)
    return Performed(found["error"], _key(call, found["what"]))


async def _point(page: Page, call: Call, bid: str) -> Performed:
    found = await page.walk("act", "point", bid)
    if not found["error"]:
        events = [_mouse("mouseMoved", found)]
        clicks = {"click": 1, "dblclick": 2}.get(call.name, 0)
        for count in range(1, clicks + 1):
            events += [_mouse("mousePressed", found, count), _mouse("mouseReleased", found, count)]
        await page.calls(*events)
    return Performed(found["error"], _key(call, found["what"]))


def _mouse(kind: str, at: dict[str, Any], count: int = 0) -> tuple[str, dict[str, Any]]:
    button = "left" if count else "none"
    params = {"type": kind, "x": at["x"], "y": at["y"], "button": button, "clickCount": count}
    return "Input.dispatchMouseEvent", params


async def _press(page: Page, call: Call, bid: str, keys: str) -> Performed:
    what = ""
    try:
        events = strokes(keys)
    except NoSuchKey as error:
        return Performed(str(error), _key(call))
    if keys in CLIPBOARD:
        return await _walk(page, call, "clipboard", bid, CLIPBOARD[keys])
    if bid:
        found = await page.walk("act", "focus", bid)
        what = found["what"]
        if found["error"]:
            return Performed(found["error"], _key(call, what))
    await page.calls(*(("Input.dispatchKeyEvent", event) for event in events))
    return Performed("", _key(call, what))


async def _drag(page: Page, call: Call, start_bid: str, end_bid: str) -> Performed:
    start = await page.walk("act", "point", start_bid)
    end = await page.walk("act", "point", end_bid)
    key = _key(call, start["what"], end["what"])
    if error := start["error"] or end["error"]:
        return Performed(error, key)
    # To show the second may have scrolled the first.
    start = await page.walk("act", "point", start_bid)
    if start["error"]:
        return Performed(start["error"], key)
    await _drag_between(page, start, end)
    return Performed("", key)


async def _drag_between(page: Page, start: dict[str, Any], end: dict[str, Any]) -> None:
    """Drag with the mouse; where the page starts a drag of the browser's own, go on with that."""
    started = page.expect("Input.dragIntercepted")
    await page.calls(_mouse("mouseMoved", start), _mouse("mousePressed", start, 1))
    for step in range(1, DRAG_STEPS + 1):
        part = step / DRAG_STEPS
        at = {axis: start[axis] + (end[axis] - start[axis]) * part for axis in ("x", "y")}
        await page.calls(("Input.dispatchMouseEvent", {**_mouse("mouseMoved", at, 1)[1], "buttons": 1}))
        if started.done():
            await _drop(page, started.result()["data"], end)
            break
    started.cancel()
    await page.calls(_mouse("mouseReleased", end, 1))


async def _drop(page: Page, data: dict[str, Any], at: dict[str, Any]) -> None:
    for kind in ("dragEnter", "dragOver", "drop"):
        await page.call("Input.dispatchDragEvent", type=kind, x=at["x"], y=at["y"], data=data)
