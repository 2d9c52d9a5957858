"""How an expert sees a page and answers: the observation as elements, and one action for what is seen.

A policy is shown the page and says what to do next. The experts of gyms are policies that follow from what
is seen alone, whatever happened before, which is what makes it possible to imitate them. `attentive` adds
what any careful user does: close what comes over the page, wait while it loads, look again when no answer
came.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from agentrl.types import Observation

# A line of the tree: tabs, perhaps an id, a role, a name in quotes, further attributes.
LINE = re.compile(r"^\t+(?:\[(\w+)\] )?(\w+) '((?:[^'\\]|\\.)*)'(.*)$")
VALUE = re.compile(r", value='((?:[^'\\]|\\.)*)'")


@dataclass(frozen=True, slots=True)
class Element:
    """One line of the page.

    Attributes:
        bid: its id; "" for what cannot be acted upon.
    """

    bid: str
    role: str
    name: str
    value: str
    rest: str

    @property
    def disabled(self) -> bool:
        """Return whether it cannot be used now."""
        return "disabled" in self.rest

    @property
    def checked(self) -> bool:
        """Return whether it is ticked."""
        return re.search(r"checked=['\"]?true", self.rest, re.IGNORECASE) is not None


@dataclass(frozen=True, slots=True)
class Page:
    """What an observation shows."""

    elements: tuple[Element, ...]

    def all(self, name: str | None = None, role: str | None = None) -> list[Element]:
        """Return the elements that can be acted upon, of a name and role."""
        return [
            each
            for each in self.elements
            if each.bid and name in (None, each.name) and role in (None, each.role)
        ]

    def find(self, name: str | None = None, role: str | None = None) -> Element | None:
        """Return the first of them."""
        return next(iter(self.all(name, role)), None)

    def says(self, text: str) -> bool:
        """Return whether some line says exactly this."""
        return any(text == each.name for each in self.elements)

    def mentions(self, text: str) -> bool:
        """Return whether some line has this in it."""
        return any(text in each.name for each in self.elements)

    def texts(self) -> list[str]:
        """Return all lines of text."""
        return [each.name for each in self.elements if not each.bid]


@dataclass(frozen=True, slots=True)
class Step:
    """An action, and what it does in words: what is used, or written or chosen, and where. "" for others."""

    call: str
    thought: str = ""


Policy = Callable[[Page], Step]


def look(text: str) -> Page:
    """Return the page that an observation shows."""
    return Page(tuple(_elements(text)))


def _elements(text: str) -> Iterator[Element]:
    for line in text.splitlines():
        if match := LINE.match(line):
            bid, role, name, rest = match.groups()
            value = VALUE.search(rest)
            yield Element(bid or "", role, _plain(name), _plain(value[1]) if value else "", rest)


def _plain(text: str) -> str:
    return text.replace("\\'", "'").replace("\\\\", "\\")


def reply(step: Step) -> str:
    """Return what an expert writes: a thought, then the call. The only place that knows.

    Names come before ids: one who has just written a name finds the id in the page more easily.
    """
    return f"{step.thought}\n{step.call}" if step.thought else step.call


def expert(policy: Policy) -> Callable[[Observation], str]:
    """Return an expert that acts by a policy."""
    careful = attentive(policy)
    return lambda observation: reply(careful(look(observation.text)))


def attentive(policy: Policy) -> Policy:
    """Return the policy of one who first closes dialogs, waits for the page, and looks again if unsure."""

    def act(page: Page) -> Step:
        if dialog := page.find("Not now", "button"):
            return click(dialog)
        if page.says("Loading..."):
            return wait()
        if refresh := page.find("Refresh", "button"):
            return click(refresh)
        return policy(page)

    return act


# Actions


def quoted(text: str) -> str:
    """Return a text as an argument."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


def click(element: Element) -> Step:
    """Click an element."""
    return Step(f"click({quoted(element.bid)})", element.name)


def press(page: Page, name: str, role: str | None = "button") -> Step:
    """Click what has this name, or wait for it."""
    found = page.find(name, role)
    return click(found) if found else wait()


def fill(page: Page, name: str, text: str) -> Step:
    """Write into the field of this name, or wait for it."""
    found = next((each for each in page.all(name) if each.role != "button"), None)
    return Step(f"fill({quoted(found.bid)}, {quoted(text)})", f"{text} in {name}") if found else wait()


def choose(page: Page, name: str, option: str) -> Step:
    """Choose an option in the list of this name, or wait for it."""
    found = page.find(name, "combobox")
    if found is None:
        return wait()
    return Step(f"select_option({quoted(found.bid)}, {quoted(option)})", f"{option} in {name}")


def wait() -> Step:
    """Let the page go on."""
    return Step("noop(1000)")


def done() -> Step:
    """Say that it is done."""
    return Step("done()")


def ask(question: str) -> Step:
    """Ask who gave the task."""
    return Step(f"ask_human({quoted(question)})")


def give_up(reason: str) -> Step:
    """Say that it cannot be done."""
    return Step(f"report_infeasible({quoted(reason)})")


def afterwards(policy: Policy, *more: Policy) -> Policy:
    """Return a policy that does `more`, one by one, before it says that it is done. It keeps count."""
    left: Sequence[Policy] = list(more)

    def act(page: Page) -> Step:
        nonlocal left
        step = policy(page)
        if step.call != "done()" or not left:
            return step
        first, *left = left
        return first(page)

    return act
