"""How an expert answers what it sees of a page: one action.

A policy is shown the page and says what to do next. The experts of gyms are policies that follow from what
is seen alone, whatever happened before, which is what makes it possible to imitate them. `attentive` adds
what any careful user does: close what comes over the page, wait while it loads, look again when no answer
came.
"""

from collections.abc import Callable, Sequence

from agentrl.types import Observation
from agentrl_browser import Element, View

# Takes what the page shows, returns an action as an agent writes it.
Policy = Callable[[View], str]


def expert(policy: Policy) -> Callable[[Observation], str]:
    """Return an expert that acts by a policy."""
    careful = attentive(policy)
    return lambda observation: careful(View.of(observation.text))


def attentive(policy: Policy) -> Policy:
    """Return the policy of one who first closes dialogs, waits for the page, and looks again if unsure."""

    def act(page: View) -> str:
        if dialog := page.find("Not now", "button"):
            return click(dialog)
        if page.says("Loading..."):
            return wait()
        if refresh := page.find("Refresh", "button"):
            return click(refresh)
        return policy(page)

    return act


# Actions


def click(element: Element) -> str:
    """Click an element."""
    return f"click({element.target!r})"


def press(page: View, name: str, role: str | None = "button") -> str:
    """Click what has this name, or wait for it."""
    found = page.find(name, role)
    return click(found) if found else wait()


def fill(page: View, name: str, text: str) -> str:
    """Write into the field of this name, or wait for it."""
    found = next((each for each in page.all(name) if each.role != "button"), None)
    return f"fill({found.target!r}, {text!r})" if found else wait()


def choose(page: View, name: str, option: str) -> str:
    """Choose an option in the list of this name, or wait for it."""
    found = page.find(name, "combobox")
    if found is None:
        return wait()
    return f"select_option({found.target!r}, {option!r})"


def wait() -> str:
    """Let the page go on."""
    return "noop(1000)"


def done() -> str:
    """Say that it is done."""
    return "done()"


def ask(question: str) -> str:
    """Ask who gave the task."""
    return f"ask_human({question!r})"


def give_up(reason: str) -> str:
    """Say that it cannot be done."""
    return f"report_infeasible({reason!r})"


def afterwards(policy: Policy, *more: Policy) -> Policy:
    """Return a policy that does `more`, one by one, before it says that it is done. It keeps count."""
    left: Sequence[Policy] = list(more)

    def act(page: View) -> str:
        nonlocal left
        step = policy(page)
        if step != "done()" or not left:
            return step
        first, *left = left
        return first(page)

    return act
