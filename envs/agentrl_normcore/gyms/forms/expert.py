"""How an expert fills in the form."""

from agentrl_browser import View
from agentrl_normcore.gym import Problem
from agentrl_normcore.looking import choose, click, fill, wait


def not_yet_written(page: View, problem: Problem) -> str | None:
    """Return what to do next until all fields are right; None when they are."""
    address = problem.facts["address"]
    if problem.shown["countries"]:
        box = page.find("Country", "combobox")
        if box is None or box.value != address["Country"]:
            return choose(page, "Country", address["Country"])
    for name in problem.shown["fields"]:
        field = page.find(name)
        if field is None or field.value != address[name]:
            return fill(page, name, address[name])
    if problem.facts["level"] == 3:
        tick = page.find("Bill to this address", "checkbox")
        if tick is None:
            return wait()
        return None if tick.checked else click(tick)
    return None
