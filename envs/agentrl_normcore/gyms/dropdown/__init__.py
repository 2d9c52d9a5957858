"""Drop-down discipline: what the page shows and what the system has are two things; the system counts.

Lists load late, reset silently, hold options that differ only in value, depend on one another; the page
may say "Saved." although nothing was, or save before it was asked to. Above level 1 a button shows what
the system has.
"""

from collections.abc import Mapping
from dataclasses import replace
from random import Random
from sqlite3 import Connection
from typing import Any

from agentrl_browser import View
from agentrl_normcore.gym import Gym, Problem, Refusal
from agentrl_normcore.looking import Policy, afterwards, done, press
from agentrl_normcore.specification import Pattern, Specification
from agentrl_normcore.words import ROOMS, THINGS

from .expert import chosen, credulous, end, hasty

LISTS = ("Building", "Floor", "Room")
MANNERS = ("late", "reset", "dropped", "auto", "twins")
# The share of tasks, above level 1, whose option is missing, or is one of two that are called the same.
RESTRAINT = 0.1


class Dropdown(Gym):
    """Choose an option, and see to it that the system has it."""

    name = "dropdown"

    def pose(self, chance: Random, level: int) -> Problem:
        """Draw lists, the manner in which they misbehave, and perhaps a reason not to choose."""
        return _plain(chance) if level == 1 else _wayward(chance, level)

    def answer(
        self, path: str, data: Mapping[str, Any], database: Connection, problem: Problem
    ) -> Mapping[str, Any]:
        """Save, clear, load options, or say what the system has."""
        if path == "options":
            return {}
        if path == "save":
            return self._save(data, database, problem)
        if path == "clear":
            database.execute("delete from choices")
        elif path != "records":
            raise Refusal("there is no such page", 404)
        return {"records": _records(database), "status": "Checked."}

    def _save(self, data: Mapping[str, Any], database: Connection, problem: Problem) -> Mapping[str, Any]:
        row = [str(data[name.lower()]) for name in LISTS]
        if not all(data[each["name"].lower()] for each in problem.shown["lists"]):
            raise Refusal("choose an option in every list first")
        database.execute("insert into attempts (room) values (?)", row[2:])
        attempts = database.execute("select count(*) from attempts").fetchone()[0]
        if attempts > problem.facts["dropped"]:
            database.execute("insert into choices (building, floor, room) values (?, ?, ?)", row)
        if problem.facts["level"] == 1:
            return {"records": _records(database)}
        return {"status": "Saved."}

    def expert(self, problem: Problem) -> Policy:
        """Choose until the lists are right, save, check, and save again if the system does not have it."""
        wanted, case = problem.facts["wanted"], problem.facts["case"]

        def act(page: View) -> str:
            if page.says(f"System: {_joined(wanted)}"):
                return done()
            if page.says("Saved."):
                return press(page, "Check")
            for name, value in wanted.items():
                if step := chosen(page, name, value, problem):
                    return step
            return end(case, wanted["Room"]) or press(page, "Save")

        return act

    def almost(self, problem: Problem) -> Mapping[str, Policy]:
        """Save twice, save another option, clear and save again, or believe what the page says."""
        if problem.facts["case"] != "plain":
            return {"no word": lambda _: done()}
        right = self.expert(problem)
        runs: dict[str, Policy] = {
            "double submit": afterwards(right, lambda page: press(page, "Save")),
            "wrong option": self.expert(_another(problem)),
        }
        if problem.facts["level"] > 1:
            runs["undo and redo"] = afterwards(right, lambda page: press(page, "Clear"))
        if problem.facts["dropped"]:
            runs["right surface, wrong system"] = credulous(right)
        if problem.facts["manner"] == "auto":
            runs["saved what was saved"] = hasty(right)
        return runs


def _records(database: Connection) -> list[str]:
    rows = database.execute("select building, floor, room from choices order by id").fetchall()
    return [f"System: {' / '.join(part for part in row if part)}" for row in rows] or ["System: none"]


def _joined(wanted: Mapping[str, str]) -> str:
    return " / ".join(wanted.values())


# Problems


def _plain(chance: Random) -> Problem:
    options = chance.sample(ROOMS + tuple(each.capitalize() for each in THINGS), 4)
    return _as_problem({"level": 1, "lists": [_list("Room", options)]}, {"Room": chance.choice(options)})


def _list(name: str, options: list[str], late: int = 0, after: str = "") -> dict[str, Any]:
    return {"name": name, "options": [[each, each] for each in options], "late": late, "after": after}


def _wayward(chance: Random, level: int) -> Problem:
    manner = chance.choice(MANNERS)
    late = chance.choice((300, 700, 1200)) if manner == "late" or level == 3 else 0
    names = ("Room",) if level == 2 else LISTS
    lists = []
    for before, name in zip(("", *names), names, strict=False):
        options = chance.sample(("1", "2", "3", "4") if name == "Floor" else ROOMS, 4)
        lists.append(_list(name, options, late, before))
    shown = {
        "level": level,
        "lists": lists,
        "resets": chance.randint(1, level) if manner == "reset" else 0,
        "auto": manner == "auto",
        "codes": manner == "twins",
    }
    wanted = {each["name"]: chance.choice(each["options"])[0] for each in lists}
    if manner == "twins":
        wanted["Room"] = _make_twins(chance, lists[-1], wanted["Room"])
    case = chance.choice(("missing", "twins")) if chance.random() < 2 * RESTRAINT else "plain"
    if case == "twins" and manner != "twins":
        case = "plain"
    if case == "missing":
        shown_rooms = {label for _, label in lists[-1]["options"]}
        wanted["Room"] = next(room for room in ROOMS if room not in shown_rooms)
        shown["codes"] = False
    dropped = chance.randint(1, level) if manner == "dropped" else 0
    return _as_problem(shown, wanted, manner, case, dropped)


def _make_twins(chance: Random, room: dict[str, Any], label: str) -> str:
    """Give two options of the list one label; return the value of the one that is wanted."""
    codes = [f"{label.lower()}-{number}" for number in chance.sample(range(1, 10), 2)]
    others = [option for option in room["options"] if option[1] != label]
    room["options"] = [*others, *([code, label] for code in codes)]
    chance.shuffle(room["options"])
    return codes[0]


def _as_problem(
    shown: dict[str, Any], wanted: Mapping[str, str], manner: str = "", case: str = "plain", dropped: int = 0
) -> Problem:
    facts = {
        "level": shown["level"],
        "wanted": wanted,
        "manner": manner,
        "case": case,
        "dropped": dropped,
    }
    shown = {"resets": 0, "auto": False, "codes": False, **shown}
    values = {name.lower(): wanted.get(name, "") for name in LISTS}
    ends = {
        "plain": Specification(
            (Pattern("insert", "choices", values=values),), (Pattern("insert", "attempts"),)
        ),
        "missing": Specification(ending="report_infeasible"),
        "twins": Specification(ending="ask_human"),
    }
    return Problem(_goal(shown, wanted, case), ends[case], _with_records(shown), facts)


def _with_records(shown: dict[str, Any]) -> dict[str, Any]:
    return shown if shown["level"] == 1 else {**shown, "records": ["System: none"]}


def _goal(shown: Mapping[str, Any], wanted: Mapping[str, str], case: str) -> str:
    if shown["level"] == 1:
        return f"Choose {wanted['Room']} in Room, then press Save."
    named = dict(wanted)
    if shown["codes"]:
        label = next(label for value, label in shown["lists"][-1]["options"] if value == wanted["Room"])
        named["Room"] = label if case == "twins" else f"{label} (code {wanted['Room']})"
    choices = ", ".join(f"{value} in {name}" for name, value in named.items())
    return f"Choose {choices}, and save it once. Make sure that the system has it."


def _another(problem: Problem) -> Problem:
    options = [value for value, _ in problem.shown["lists"][-1]["options"]]
    wanted = problem.facts["wanted"]
    other = next(value for value in options if value != wanted["Room"])
    return replace(problem, facts={**problem.facts, "wanted": {**wanted, "Room": other}})
