"""How an expert picks a day, whatever the picker."""

from datetime import date

from agentrl_browser import View
from agentrl_normcore.gym import Problem
from agentrl_normcore.looking import choose, fill, press

from .dates import FORMATS, month_of, with_weekday


def not_yet_picked(page: View, problem: Problem) -> str | None:
    """Return what to do next until room and day are right; None when they are."""
    facts, shown = problem.facts, problem.shown
    if shown.get("rooms"):
        room = page.find("Room", "combobox")
        if room is None or room.value != facts["room"]:
            return choose(page, "Room", facts["room"])
    if facts["level"] == 1:
        return None if page.says(f"Picked: {facts['first']}") else press(page, facts["first"])
    if shown["kind"] == "range":
        return _range(page, problem)
    if page.says(f"Picked: {with_weekday(facts['first'])}"):
        return None
    if shown["kind"] == "grid":
        return _turn_to(page, date.fromisoformat(facts["first"]))
    if shown["kind"] == "native":
        return fill(page, "Date", facts["first"])
    day = date.fromisoformat(facts["first"])
    return fill(page, f"Date ({shown['format']})", day.strftime(FORMATS[shown["format"]]))


def _range(page: View, problem: Problem) -> str | None:
    first, last = problem.facts["first"], problem.facts["last"]
    begun = page.says(f"From: {with_weekday(first)}")
    if begun and page.says(f"To: {with_weekday(last)}"):
        return None
    wanted = last if begun and not page.mentions("To: ") else first
    return _turn_to(page, date.fromisoformat(wanted))


def _turn_to(page: View, day: date) -> str:
    """Open the calendar, turn its leaves, pick the day."""
    shown = next((text for text in page.texts() if month_of(text)), None)
    if shown is None:
        return press(page, "Choose date")
    month = month_of(shown)
    assert month is not None
    if month < (day.year, day.month):
        return press(page, "Next month")
    if month > (day.year, day.month):
        return press(page, "Previous month")
    return press(page, str(day.day))
