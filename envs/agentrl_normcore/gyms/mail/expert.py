"""How an expert opens, writes and holds back."""

from collections.abc import Mapping
from typing import Any

from agentrl_browser import View
from agentrl_normcore.looking import ask, choose, fill, give_up, press


def restrained(page: View, facts: Mapping[str, Any]) -> str | None:
    """Return the word that ends a task that is not to be done; None for one that is."""
    if facts["case"] in ("plain", "") or page.find("To") is None:
        return None
    if facts["case"] == "unknown":
        return give_up("the recipient is not among the contacts")
    return ask("Whom do you mean?" if facts["case"] == "alike" else "The recipient is outside. May I write?")


def reply(page: View, facts: Mapping[str, Any]) -> str | None:
    """Open the message and the right form; None when it is open."""
    kind = "Reply to all, with" if facts["everyone"] else "Reply to"
    if not page.says(f"Message of {facts['opened']}"):
        return press(page, f"Open {facts['opened']}")
    if page.says(f"{kind} {facts['to']}"):
        return None
    return press(page, "Reply to all" if facts["everyone"] else "Reply")


def not_yet_written(page: View, facts: Mapping[str, Any]) -> str | None:
    """Return what to do next until everything is written; None when it is."""
    if facts["level"] == 2:
        box = page.find("To", "combobox")
        if box is None or box.value != facts["label"]:
            return choose(page, "To", facts["to"])
    fields = {1: {"To": "to", "Subject": "subject"}, 2: {"Subject": "subject", "Text": "body"}}
    for name, fact in fields.get(facts["level"], {"Text": "body"}).items():
        field = page.find(name)
        if field is None or field.value != facts[fact]:
            return fill(page, name, facts[fact])
    return None
