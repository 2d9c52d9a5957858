"""Reads an observation again: its lines as elements, and which of them an agent means."""

import re
from collections import Counter
from dataclasses import dataclass

# A line of the tree: tabs, perhaps a bid, a role, a name in quotes, further states.
_LINE = re.compile(r"\t+(?:\[(?P<bid>\d+)\] )?(?P<role>\S+) '(?P<name>(?:[^'\\]|\\.)*)'(?P<states>.*)")
_STATE = re.compile(r"(\w+)='((?:[^'\\]|\\.)*)'")
_ESCAPED = re.compile(r"\\(.)")
# A name that says nothing, or that would be taken for a bid.
_BIDLIKE = re.compile(r"\d*")


@dataclass(frozen=True, slots=True)
class Element:
    """A line of an observation.

    Attributes:
        bid: its number, "" for what cannot be acted on.
        role: what it is.
        name: what it is called.
        states: the rest of the line.
        target: what an action calls it: its name where nothing else is called so, else its role and name; its
            bid if it has no name, or others have the same.
    """

    bid: str
    role: str
    name: str
    states: str
    target: str

    @property
    def value(self) -> str:
        """Return what it holds, "" if nothing."""
        return self.state("value")

    @property
    def checked(self) -> bool:
        """Return whether it is ticked."""
        return self.state("checked") == "true"

    @property
    def disabled(self) -> bool:
        """Return whether it cannot be used now."""
        return ", disabled=True" in self.states

    def state(self, name: str) -> str:
        """Return a state that stands in quotes, "" if it has none."""
        return next((_plain(text) for each, text in _STATE.findall(self.states) if each == name), "")


@dataclass(frozen=True, slots=True)
class View:
    """What an observation shows."""

    elements: tuple[Element, ...]

    @classmethod
    def of(cls, text: str) -> "View":
        """Read an observation."""
        lines = [found for line in text.splitlines() if (found := _LINE.fullmatch(line))]
        called = Counter(
            name for found in lines if found["bid"] for name in _names(found["role"], _plain(found["name"]))
        )
        return cls(tuple(_element(found, called) for found in lines))

    def meant(self, target: str) -> str:
        """Return the bid of what an agent calls `target`: a bid, a name, or a role and name as listed.

        Raises:
            LookupError: nothing is called so, or several are; the message says what to do.
        """
        if target.isdecimal():
            return target
        found = [each.bid for each in self.all() if target in _names(each.role, each.name)]
        if len(found) == 1:
            return found[0]
        said = repr(target[:80])
        if not found:
            raise LookupError(f"nothing is called {said}; take a bid or a name from the newest observation")
        raise LookupError(f"{len(found)} elements are called {said}; take a bid: {', '.join(found)}")

    def all(self, name: str | None = None, role: str | None = None) -> list[Element]:
        """Return the elements that can be acted on, of a name and a role if given."""
        return [
            each
            for each in self.elements
            if each.bid and name in (None, each.name) and role in (None, each.role)
        ]

    def find(self, name: str | None = None, role: str | None = None) -> Element | None:
        """Return the first of them, None if there is none."""
        return next(iter(self.all(name, role)), None)

    def first(self, name: str | None = None, role: str | None = None) -> Element:
        """Return the first of them.

        Raises:
            LookupError: there is none.
        """
        found = self.find(name, role)
        if found is None:
            raise LookupError(f"the page shows no {role or 'element'} {name or ''}")
        return found

    def says(self, text: str) -> bool:
        """Return whether some line says exactly this."""
        return any(text == each.name for each in self.elements)

    def mentions(self, text: str) -> bool:
        """Return whether some line has this in it."""
        return any(text in each.name for each in self.elements)

    def texts(self) -> list[str]:
        """Return what the lines say that cannot be acted on."""
        return [each.name for each in self.elements if not each.bid]


def _names(role: str, name: str) -> tuple[str, str]:
    """Return what an element can be called: its name, or its role and name as lines have them."""
    escaped = name.replace("\\", "\\\\").replace("'", "\\'")
    return name, f"{role} '{escaped}'"


def _element(found: re.Match[str], called: Counter[str]) -> Element:
    name, full = _names(found["role"], _plain(found["name"]))
    bid = found["bid"] or ""
    names = (name, full) if name else ()
    target = next((each for each in names if called[each] == 1 and not _BIDLIKE.fullmatch(each)), bid)
    return Element(bid, found["role"], name, found["states"], target if bid else "")


def _plain(quoted: str) -> str:
    return _ESCAPED.sub(r"\1", quoted)
