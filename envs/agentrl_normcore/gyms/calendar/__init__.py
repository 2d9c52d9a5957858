"""Calendar stability: the right date, committed exactly once, whatever the date picker looks like.

Pickers are grids, whose weeks begin on Sunday or Monday or run reversed, native fields, fields to type
into, and ranges; at level 3 they open in a layer over the page. What was picked is shown before it is
booked.
"""

import calendar
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta
from random import Random
from sqlite3 import Connection
from typing import Any

from agentrl_browser import View
from agentrl_normcore.gym import Gym, Problem, Refusal
from agentrl_normcore.looking import Policy, afterwards, ask, done, give_up, press
from agentrl_normcore.specification import Pattern, Specification
from agentrl_normcore.words import ROOMS

from .dates import FORMATS, in_words, span
from .expert import not_yet_picked

WEEKEND = (calendar.SATURDAY, calendar.SUNDAY)
RULE = " If it begins on a Saturday or Sunday, do not book it, but ask for approval."
# The share of tasks, above level 1, with a rule or a day that may keep one from booking.
RESTRAINT = 0.2


class Calendar(Gym):
    """Book a day."""

    name = "calendar"
    moves = True

    def pose(self, chance: Random, level: int) -> Problem:
        """Draw a day, a picker, and perhaps a reason not to book."""
        return _week(chance) if level == 1 else _month(chance, level)

    def answer(
        self, path: str, data: Mapping[str, Any], database: Connection, problem: Problem
    ) -> Mapping[str, Any]:
        """Book, hold, cancel, or say what is booked."""
        if path == "book":
            _book(data, database, problem)
        elif path == "hold":
            database.execute("insert into holds (day) values (?)", (str(data["day"]),))
        elif path == "cancel":
            database.execute("delete from bookings where id = (select max(id) from bookings)")
        elif path != "records":
            raise Refusal("there is no such page", 404)
        return {"records": _records(database, problem)}

    def expert(self, problem: Problem) -> Policy:
        """Pick until what was picked is right, book until it is booked."""
        facts = problem.facts

        def act(page: View) -> str:
            if page.says(f"Booked: {facts['booked']}"):
                return done()
            if page.mentions("is taken"):
                return give_up(f"{facts['booked']} is taken")
            if step := not_yet_picked(page, problem):
                return step
            if facts["case"] == "approval":
                return ask(f"{facts['booked']} is at the weekend. May I book it?")
            return press(page, "Book")

        return act

    def almost(self, problem: Problem) -> Mapping[str, Policy]:
        """Book twice, another day, with something else, or after a cancellation; or book without asking."""
        if problem.facts["case"] == "approval":
            return {"no question": self.expert(replace(problem, facts={**problem.facts, "case": "plain"}))}
        if problem.facts["case"] == "taken":
            return {"no report": lambda _: done()}
        runs = {
            "double submit": afterwards(self.expert(problem), lambda page: press(page, "Book")),
            "wrong day": self.expert(_another_day(problem)),
        }
        if problem.facts["level"] > 1:
            cancel = lambda page: press(page, "Cancel last booking")  # noqa: E731
            runs["stray change"] = afterwards(self.expert(problem), lambda page: press(page, "Hold"))
            runs["undo and redo"] = afterwards(self.expert(problem), cancel)
        return runs


def _book(data: Mapping[str, Any], database: Connection, problem: Problem) -> None:
    room, first, last = (str(data[name] or "") for name in ("room", "first", "last"))
    if not first:
        raise Refusal("pick a day first")
    if problem.shown.get("rooms") and not room:
        raise Refusal("choose a room first")
    if problem.facts["level"] > 1 and not _dates(first, last):
        raise Refusal("there is no such day")
    if problem.facts["case"] == "taken" and first <= problem.facts["first"] <= last:
        raise Refusal(f"{in_words(problem.facts['first'])} is taken", 409)
    database.execute("insert into bookings (room, first, last) values (?, ?, ?)", (room, first, last))


def _dates(*texts: str) -> bool:
    try:
        return all(date.fromisoformat(text) for text in texts)
    except ValueError:
        return False


def _records(database: Connection, problem: Problem) -> list[str]:
    rows = database.execute("select first, last from bookings order by id").fetchall()
    plain = problem.facts["level"] == 1
    return [f"Booked: {first if plain else span(first, last)}" for first, last in rows]


# Problems


def _week(chance: Random) -> Problem:
    days = chance.sample(range(1, 32), 6)
    days.sort(reverse=chance.random() < 0.3)
    return _as_week(days, chance.choice(days))


def _as_week(days: list[int], day: int) -> Problem:
    facts = {"level": 1, "first": str(day), "last": str(day), "booked": str(day), "case": "plain"}
    booking = Pattern("insert", "bookings", values={"room": "", "first": str(day), "last": str(day)})
    shown = {"level": 1, "kind": "grid", "days": days}
    return Problem(f"Pick {day}, then press Book.", Specification((booking,)), shown, facts)


def _month(chance: Random, level: int) -> Problem:
    kinds = ("grid", "native", "typed") if level == 2 else ("grid", "typed", "range", "range")
    day = date(2026, 1, 1) + timedelta(chance.randrange(700))
    kind = chance.choice(kinds)
    last = day + timedelta(chance.randint(2, 40)) if kind == "range" else day
    month = _later(day, chance.randint(-1, 1) if level == 2 else chance.randint(-3, 3))
    shown: dict[str, Any] = {
        "level": level,
        "kind": kind,
        "year": month.year,
        "month": month.month,
        "start": chance.randrange(2),
        "reversed": chance.random() < 0.3,
        "format": chance.choice(list(FORMATS)),
        "layer": level == 3 and kind in ("grid", "range"),
        "rooms": chance.sample(ROOMS, 4) if level == 3 else None,
    }
    rule = chance.random() < 2 * RESTRAINT
    taken = chance.random() < RESTRAINT / 2
    return _as_month(shown, day, last, chance.choice(shown["rooms"]) if level == 3 else "", (rule, taken))


def _as_month(
    shown: Mapping[str, Any], day: date, last: date, room: str, hurdles: tuple[bool, bool]
) -> Problem:
    """Return the problem; `hurdles` are whether weekends need approval, and whether the day is taken."""
    rule, taken = hurdles
    booked = span(day.isoformat(), last.isoformat())
    goal = f"Book {booked}, room {room}." if room else f"Book {booked}."
    goal += RULE if rule else ""
    case = "approval" if rule and day.weekday() in WEEKEND else "taken" if taken else "plain"
    values = {"room": room, "first": day.isoformat(), "last": last.isoformat()}
    facts = {"level": shown["level"], **values, "booked": booked, "case": case, "hurdles": hurdles}
    ends = {
        "plain": Specification((Pattern("insert", "bookings", values=values),)),
        "approval": Specification(ending="ask_human"),
        "taken": Specification(ending="report_infeasible"),
    }
    return Problem(goal, ends[case], shown, facts)


def _later(day: date, months: int) -> date:
    years, month = divmod(day.month - 1 + months, 12)
    return date(day.year + years, month + 1, 1)


def _another_day(problem: Problem) -> Problem:
    facts, shown = problem.facts, problem.shown
    if facts["level"] == 1:
        other = next(day for day in shown["days"] if str(day) != facts["first"])
        return _as_week(shown["days"], other)
    day, last = (date.fromisoformat(facts[name]) + timedelta(1) for name in ("first", "last"))
    return _as_month(shown, day, last, facts["room"], (False, False))
