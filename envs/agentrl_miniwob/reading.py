"""How an expert sees: the lines of an observation as elements, with what they are called and say."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_LINE = re.compile(r"\t*(?:\[(?P<bid>\d+)\] )?(?P<role>\S+) '(?P<name>(?:[^'\\]|\\.)*)'(?P<states>.*)")
_VALUE = re.compile(r"(\w+)='((?:[^'\\]|\\.)*)'")
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Element:
    """A line of an observation; `bid` is "" for what cannot be acted on."""

    bid: str
    role: str
    name: str
    states: str

    def value(self, state: str = "value") -> str:
        """Return a state such as value or checked, "" if it has none."""
        return next((_plain(text) for name, text in _VALUE.findall(self.states) if name == state), "")


@dataclass(frozen=True, slots=True)
class View:
    """What an observation shows."""

    elements: tuple[Element, ...]

    @classmethod
    def of(cls, text: str) -> "View":
        """Read an observation."""
        matches = (_LINE.fullmatch(line) for line in text.splitlines())
        return cls(
            tuple(Element(m["bid"] or "", m["role"], _plain(m["name"]), m["states"]) for m in matches if m)
        )

    def all(self, *roles: str, name: str | None = None) -> Iterator[Element]:
        """Yield the elements that can be acted on, of these roles and this name if given."""
        for each in self.elements:
            if each.bid and (not roles or each.role in roles) and (name is None or each.name == name):
                yield each

    def first(self, *roles: str, name: str | None = None) -> Element:
        """Return the first of `all`.

        Raises:
            LookupError: there is none.
        """
        for each in self.all(*roles, name=name):
            return each
        raise LookupError(f"the page shows no {' or '.join(roles)} {name or ''}")


def _plain(quoted: str) -> str:
    return _ESCAPED.sub(r"\1", quoted)
