"""How an expert chooses, and how a careless one does."""

from agentrl_browser import View
from agentrl_normcore.gym import Problem
from agentrl_normcore.looking import Policy, ask, choose, done, give_up, press, wait


def chosen(page: View, name: str, value: str, problem: Problem) -> str | None:
    """Return what to do next until the list `name` is right; None when it is, or cannot be."""
    if load := page.find(f"Load {name}", "button"):
        return press(page, load.name)
    box = page.find(name, "combobox")
    if box is None or box.disabled:
        return wait()
    if name == "Room" and problem.facts["case"] != "plain":
        return None
    right = page.says(f"Code: {value}") if name == "Room" and problem.shown["codes"] else box.value == value
    return None if right else choose(page, name, value)


def end(case: str, room: str) -> str | None:
    """Return the word that ends a task that is not to be done; None for one that is."""
    if case == "missing":
        return give_up(f"there is no {room} in Room")
    return ask("Two options are called the same. Which code?") if case == "twins" else None


def credulous(policy: Policy) -> Policy:
    """Return the policy of one who believes what the page says."""
    return lambda page: done() if page.says("Saved.") else policy(page)


def hasty(policy: Policy) -> Policy:
    """Return the policy of one who saves once more what the page has saved by itself."""
    pressed = False

    def act(page: View) -> str:
        nonlocal pressed
        if page.says("Saved.") and not pressed:
            pressed = True
            return press(page, "Save")
        return policy(page)

    return act
