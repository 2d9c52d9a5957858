"""Shows how some pages are solved, knowing no more than what an agent is shown.

An expert reads the goal from the first observation, and what to do next from the newest one: where a field
already holds what it should, the next thing is done.
"""

import re
from collections.abc import Callable, Mapping

from agentrl import Expert, Observation
from agentrl_browser import Element, View

# Returns the action that comes next; takes what the goal names, and the page.
Way = Callable[[str, View, int], str]


def expert_for(page: str) -> Expert | None:
    """Return a new expert for a page, None if there is none."""
    way = EXPERTS.get(page)
    return None if way is None else _Expert(way)


class _Expert:
    def __init__(self, way: Way) -> None:
        self._way, self._goal, self._turn = way, "", 0

    def __call__(self, observation: Observation) -> str:
        """Return what an expert would write now."""
        if self._turn == 0:
            self._goal = observation.text.partition("\n")[0].removeprefix("Goal: ")
        self._turn += 1
        return self._way(self._goal, View.of(observation.text), self._turn - 1)


def click(element: Element) -> str:
    """Return the action that clicks an element."""
    return f"click({element.target!r})"


def fill(element: Element, text: str) -> str:
    """Return the action that fills a field."""
    return f"fill({element.target!r}, {text!r})"


def quoted(goal: str) -> list[str]:
    """Return what a goal puts in double quotes."""
    return re.findall(r'"([^"]*)"', goal)


def _submit(view: View) -> str:
    button = next(
        (each for each in view.all(role="button") if each.name.lower() in ("submit", "login", "ok")), None
    )
    return click(button or view.first(role="button"))


def _click_the_button(goal: str, view: View, turn: int) -> str:
    return click(view.first(role="button"))


def _click_button_one(goal: str, view: View, turn: int) -> str:
    return click(view.first(role="button", name="ONE"))


def _click_named_button(goal: str, view: View, turn: int) -> str:
    return click(view.first(role="button", name=quoted(goal)[0]))


def _click_in_sequence(goal: str, view: View, turn: int) -> str:
    return click(view.first(role="button", name=("ONE", "TWO")[turn]))


def _click_link(goal: str, view: View, turn: int) -> str:
    return click(view.first(name=quoted(goal)[0]))


def _close_dialog(goal: str, view: View, turn: int) -> str:
    return click(next(each for each in view.all(role="button") if each.name.lower() in ("close", "x", "")))


def _click_in_dialog(goal: str, view: View, turn: int) -> str:
    wanted = quoted(goal)[0]
    wanted = "Close" if wanted == "x" else wanted
    return click(view.first(role="button", name=wanted))


def _focus(goal: str, view: View, turn: int) -> str:
    found = re.search(r"(\d+)(?:st|nd|rd|th)", goal)
    place = int(found[1]) - 1 if found else 0
    return f"focus({[*view.all(role='textbox')][place].target!r})"


def _enter_text(goal: str, view: View, turn: int) -> str:
    field = view.first(role="textbox")
    text = quoted(goal)[0]
    return fill(field, text) if field.value != text else _submit(view)


def _fill_all(texts: list[str], view: View) -> str:
    for field, text in zip(view.all(role="textbox"), texts, strict=False):
        if field.value not in (text, "•" * len(text)):
            return fill(field, text)
    return _submit(view)


def _log_in(goal: str, view: View, turn: int) -> str:
    return _fill_all(quoted(goal), view)


def _enter_password(goal: str, view: View, turn: int) -> str:
    return _fill_all(quoted(goal) * 2, view)


def _choose_in_list(goal: str, view: View, turn: int) -> str:
    wanted = goal.removeprefix("Select ").rpartition(" from the list")[0]
    box = view.first(role="combobox")
    return f"select_option({box.target!r}, {wanted!r})" if box.value != wanted else _submit(view)


def _choose_option(goal: str, view: View, turn: int) -> str:
    wanted = goal.removeprefix("Select ").rpartition(" and click Submit")[0]
    option = view.first(role="radio", name=wanted)
    return click(option) if option.state("checked") == "false" else _submit(view)


def _tick(goal: str, view: View, turn: int) -> str:
    wanted = goal.removeprefix("Select ").rpartition(" and click Submit")[0].split(", ")
    for box in view.all(role="checkbox"):
        if box.state("checked") != ("true" if box.name in wanted else "false"):
            return click(box)
    return _submit(view)


def _click_tab(goal: str, view: View, turn: int) -> str:
    return click(view.first(name=goal.removeprefix("Click on ").rstrip(".")))


def _expand(goal: str, view: View, turn: int) -> str:
    return _submit(view) if turn else click(view.first(role="tab"))


def _simple_sum(goal: str, view: View, turn: int) -> str:
    problem = next(each.name for each in view.elements if re.fullmatch(r"[\d\s+\-x*=?]+", each.name))
    left, sign, right = re.findall(r"\d+|[+\-x*]", problem)[:3]
    result = {"+": int(left) + int(right), "-": int(left) - int(right)}.get(sign, int(left) * int(right))
    field = view.first(role="textbox")
    return fill(field, str(result)) if field.value != str(result) else _submit(view)


EXPERTS: Mapping[str, Way] = {
    "click-test": _click_the_button,
    "click-test-2": _click_button_one,
    "click-button": _click_named_button,
    "click-button-sequence": _click_in_sequence,
    "click-link": _click_link,
    "click-dialog": _close_dialog,
    "click-dialog-2": _click_in_dialog,
    "click-option": _choose_option,
    "click-checkboxes": _tick,
    "click-tab": _click_tab,
    "click-collapsible": _expand,
    "choose-list": _choose_in_list,
    "enter-text": _enter_text,
    "enter-text-dynamic": _enter_text,
    "enter-password": _enter_password,
    "focus-text": _focus,
    "focus-text-2": _focus,
    "login-user": _log_in,
    "simple-arithmetic": _simple_sum,
}
