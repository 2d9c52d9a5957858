"""How an expert answers what it sees of a page: one action.

A policy is shown the page and says what to do next. The experts of gyms are policies that follow from what
is seen alone, whatever happened before, which is what makes it possible to imitate them. `attentive` adds
what any careful user does: close what comes over the page, wait while it loads, look again when no answer
came.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agentrl.types import Observation
from agentrl_browser import Element, View


@dataclass(frozen=True, slots=True)
class Step:
    """An action, and what it does in words: what is used, or written or chosen, and where. "" for others."""

    call: str
    thought: str = ""


Policy = Callable[[View], Step]


def reply(step: Step) -> str:
    """Return what an expert writes: a thought, then the call. The only place that knows.

    Names come before ids: one who has just written a name finds the id in the page more easily.
    """
    return f"{step.thought}\n{step.call}" if step.thought else step.call


def expert(policy: Policy) -> Callable[[Observation], str]:
    """Return an expert that acts by a policy."""
    careful = attentive(policy)
    return lambda observation: reply(careful(View.of(observation.text)))


def attentive(policy: Policy) -> Policy:
    """Return the policy of one who first closes dialogs, waits for the page, and looks again if unsure."""

    def act(page: View) -> Step:
        if dialog := page.find("Not now", "button"):
            return click(dialog)
        if page.says("Loading..."):
            return wait()
        if refresh := page.find("Refresh", "button"):
            return click(refresh)
        return policy(page)

    return act


# Actions


def click(element: Element) -> Step:
    """Click an element."""
    return Step(f"click({element.bid!r})", element.name)


def press(page: View, name: str, role: str | None = "button") -> Step:
    """Click what has this name, or wait for it."""
    found = page.find(name, role)
    return click(found) if found else wait()


def fill(page: View, name: str, text: str) -> Step:
    """Write into the field of this name, or wait for it."""
    found = next((each for each in page.all(name) if each.role != "button"), None)
    return Step(f"fill({found.bid!r}, {text!r})", f"{text} in {name}") if found else wait()


def choose(page: View, name: str, option: str) -> Step:
    """Choose an option in the list of this name, or wait for it."""
    found = page.find(name, "combobox")
    if found is None:
        return wait()
    return Step(f"select_option({found.bid!r}, {option!r})", f"{option} in {name}")


def wait() -> Step:
    """Let the page go on."""
    return Step("noop(1000)")


def done() -> Step:
    """Say that it is done."""
    return Step("done()")


def ask(question: str) -> Step:
    """Ask who gave the task."""
    return Step(f"ask_human({question!r})")


def give_up(reason: str) -> Step:
    """Say that it cannot be done."""
    return Step(f"report_infeasible({reason!r})")


def afterwards(policy: Policy, *more: Policy) -> Policy:
    """Return a policy that does `more`, one by one, before it says that it is done. It keeps count."""
    left: Sequence[Policy] = list(more)

    def act(page: View) -> Step:
        nonlocal left
        step = policy(page)
        if step.call != "done()" or not left:
            return step
        first, *left = left
        return first(page)

    return act
