"""How an expert sees to tickets, and how it is done almost right."""

from agentrl_browser import View
from agentrl_normcore.gym import Problem
from agentrl_normcore.looking import Policy, ask, choose, done, fill, give_up, press


def keep(problem: Problem) -> Policy:
    """Search for the item, and keep it."""
    item = problem.facts["item"]

    def act(page: View) -> str:
        if page.says(f"Kept: {item}"):
            return done()
        if page.find(f"Keep {item}", "button"):
            return press(page, f"Keep {item}")
        return _search(page, item)

    return act


def _search(page: View, text: str) -> str:
    if page.find(f"Use {text}", "button"):
        return press(page, f"Use {text}")
    field = page.find("Search")
    return press(page, "Find") if field and field.value == text else fill(page, "Search", text)


def see_to(problem: Problem, copy: bool = False) -> Policy:
    """See to the tickets one by one; with `copy`, also send the copies that nobody asked for."""
    wanted, case = problem.facts["wanted"], problem.facts["case"]

    def act(page: View) -> str:
        if step := _dialog(page, copy):
            return step
        left = [pair for pair in wanted if not page.says(f"{pair[0]} is now {pair[1]}")]
        if not left:
            return done()
        title, status = left[0]
        return _open(page, title, case) or _change(page, status, case)

    return act


def _dialog(page: View, copy: bool) -> str | None:
    if page.says("Send a copy to everyone?"):
        return press(page, "Yes" if copy else "No")
    if page.says("Save this ticket?"):
        return press(page, "Yes")
    return press(page, "Close notice") if page.find("Close notice") else None


def _open(page: View, title: str, case: str) -> str | None:
    if page.says(f"Ticket {title}"):
        return None
    hides = page.find("Show", "combobox")
    if hides is not None and hides.value != "all":
        return choose(page, "Show", "all")
    if page.find(f"Open {title}", "button"):
        return press(page, f"Open {title}")
    step = _search(page, title)
    field = page.find("Search")
    searched = field is not None and field.value == title and not page.find(f"Use {title}", "button")
    others = [each for each in page.all(role="button") if each.name.startswith("Open ")]
    looked = searched and any(each.name.endswith(title.rsplit(" ", maxsplit=1)[-1]) for each in others)
    return give_up(f"there is no ticket {title}") if case == "missing" and looked else step


def _change(page: View, status: str, case: str) -> str:
    if case == "locked":
        return ask("The ticket is locked. May I change it?")
    box, save = page.find("Status", "combobox"), page.find("Save", "button")
    if box is None or box.value != status:
        return choose(page, "Status", status)
    return press(page, "Validate" if save is not None and save.disabled else "Save")


def saving(problem: Problem) -> list[Policy]:
    """Return the steps that save the last ticket once more."""
    answers: list[Policy] = [
        lambda page: _dialog(page, copy=False) or "noop(200)" for _ in problem.shown["dialogs"]
    ]
    return [lambda page: press(page, "Save"), *answers, lambda _: "noop(3000)"]


def detour(problem: Problem, other: Problem) -> Policy:
    """Return a policy that first sets the statuses of `other`, then the right ones."""
    first, then = see_to(other), see_to(problem)
    turned = False

    def act(page: View) -> str:
        nonlocal turned
        step = then(page) if turned else first(page)
        if step == "done()" and not turned:
            turned = True
            return then(page)
        return step

    return act
