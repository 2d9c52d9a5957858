"""Key presses as the DevTools protocol wants them: `Enter`, `a`, `Shift+Tab`, `Control+a`."""

from itertools import accumulate
from operator import or_
from typing import Any

MODIFIERS = {"Alt": 1, "Control": 2, "Ctrl": 2, "Meta": 4, "Shift": 8}
_CODES = {"Alt": 18, "Control": 17, "Ctrl": 17, "Meta": 91, "Shift": 16}
# Name: virtual key code, and the text that it types.
NAMED: dict[str, tuple[int, str]] = {
    "Backspace": (8, ""),
    "Tab": (9, ""),
    "Enter": (13, "\r"),
    "Escape": (27, ""),
    "Space": (32, " "),
    "PageUp": (33, ""),
    "PageDown": (34, ""),
    "End": (35, ""),
    "Home": (36, ""),
    "ArrowLeft": (37, ""),
    "ArrowUp": (38, ""),
    "ArrowRight": (39, ""),
    "ArrowDown": (40, ""),
    "Insert": (45, ""),
    "Delete": (46, ""),
    **{f"F{number}": (111 + number, "") for number in range(1, 13)},
}


# Virtual key codes of the other characters, with what Shift makes of them (US keyboard). Without one of its
# own a character would press the key that has its number: a dot would be Delete.
_SIGNS = {
    **{";:": 186, "=+": 187, ",<": 188, "-_": 189, ".>": 190, "/?": 191, "`~": 192},
    **{"[{": 219, "\\|": 220, "]}": 221, "'\"": 222},
}
_PUNCTUATION = {
    **{sign: ord(digit) for digit, sign in zip("0123456789", ")!@#$%^&*(", strict=True)},
    **{sign: code for signs, code in _SIGNS.items() for sign in signs},
}


class NoSuchKey(ValueError):
    """A key is not known; the message lists those that are."""


def strokes(combination: str) -> list[dict[str, Any]]:
    """Return the key events that press `combination`, and release it.

    Raises:
        NoSuchKey: there is no such key.
    """
    held, key = _split(combination)
    masks = [*accumulate((MODIFIERS[name] for name in held), or_)]
    mask = masks[-1] if masks else 0
    event = _event(key, mask)
    down = {**event, "type": "keyDown" if event.get("text") else "rawKeyDown"}
    up = {name: value for name, value in event.items() if name != "text"}
    before = [
        {"type": "rawKeyDown", **_modifier(name), "modifiers": so_far}
        for name, so_far in zip(held, masks, strict=True)
    ]
    after = [
        {"type": "keyUp", **_modifier(name), "modifiers": so_far & ~MODIFIERS[name]}
        for name, so_far in zip(reversed(held), reversed(masks), strict=True)
    ]
    return [*before, down, {**up, "type": "keyUp"}, *after]


def _split(combination: str) -> tuple[list[str], str]:
    *held, key = combination.split("+") if combination not in ("+", "") else [combination]
    if key == "" and held and held[-1] == "":  # Control++
        *held, key = [*held[:-1], "+"]
    unknown = [name for name in held if name not in MODIFIERS]
    if unknown or not (key in NAMED or key in MODIFIERS or len(key) == 1):
        known = ", ".join(name for name in NAMED if not name.startswith("F"))
        raise NoSuchKey(
            f"there is no key {(unknown or [key])[0]!r}; keys are single characters, {known} and F1 to F12, "
            f"perhaps with {', '.join(MODIFIERS)}, as in Control+a"
        )
    return held, key


def _modifier(name: str) -> dict[str, Any]:
    key = "Control" if name == "Ctrl" else name
    return {"key": key, "code": f"{key}Left", "windowsVirtualKeyCode": _CODES[name]}


def _code(character: str) -> int:
    """Return the virtual key code of a character, 0 if there is none."""
    if character.isascii() and (character.isalnum() or character == " "):
        return ord(character.upper())
    return _PUNCTUATION.get(character, 0)


def _event(key: str, mask: int) -> dict[str, Any]:
    if key in MODIFIERS:
        return {**_modifier(key), "modifiers": mask}
    code, text = NAMED.get(key) or (_code(key), key)
    if len(key) == 1 and mask & 8:
        key = text = key.upper()
    event: dict[str, Any] = {
        "key": " " if key == "Space" else key,
        "code": key if key in NAMED else f"Key{key.upper()}" if key.isalpha() else "",
        "windowsVirtualKeyCode": code,
        "modifiers": mask,
    }
    if text and not mask & 7:
        event["text"] = text
    return event
