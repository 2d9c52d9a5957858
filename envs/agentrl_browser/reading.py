"""Reads an observation again: its lines as elements, for experts who have to look at the page."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

# A line of the tree: tabs, perhaps a bid, a role, a name in quotes, further states.
_LINE = re.compile(r"\t+(?:\[(?P<bid>\d+)\] )?(?P<role>\S+) '(?P<name>(?:[^'\\]|\\.)*)'(?P<states>.*)")
_STATE = re.compile(r"(\w+)='((?:[^'\\]|\\.)*)'")
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Element:
    """A line of an observation; `bid` is "" for what cannot be acted on."""

    bid: str
    role: str
    name: str
    states: str

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
        return cls(tuple(_elements(text)))

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


def _elements(text: str) -> Iterator[Element]:
    for line in text.splitlines():
        if found := _LINE.fullmatch(line):
            yield Element(found["bid"] or "", found["role"], _plain(found["name"]), found["states"])


def _plain(quoted: str) -> str:
    return _ESCAPED.sub(r"\1", quoted)
