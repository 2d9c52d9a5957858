"""Async endurance: search, filter, change, validate, confirm, and again, in a page with a will of its own.

The field to search in fights its own list of suggestions, a filter may hide what is looked for, tickets stand
empty before they fill, some cannot be saved before the system has validated them, dialogs come in an order
that differs from task to task, and one of them offers something that nobody asked for. At level 3 several
tickets have to be seen to, which takes dozens of steps.
"""

from collections.abc import Mapping
from dataclasses import replace
from random import Random
from sqlite3 import Connection
from typing import Any

from agentrl_normcore.gym import Gym, Problem, Refusal
from agentrl_normcore.looking import Policy, afterwards, done, give_up, press
from agentrl_normcore.specification import Pattern, Specification
from agentrl_normcore.words import COLOURS, THINGS

from .expert import detour, keep, saving, see_to

STATUSES = ("open", "waiting", "solved", "closed")
# What the filter says when it hides nothing.
ALL = "all"
# The share of tasks, above level 1, with a ticket that does not exist or is locked.
RESTRAINT = 0.2


class Endurance(Gym):
    """Find things and see to them."""

    name = "endurance"

    def pose(self, chance: Random, level: int) -> Problem:
        """Draw what to find and what to do with it."""
        return _keeping(chance) if level == 1 else _tickets(chance, level)

    def answer(
        self, path: str, data: Mapping[str, Any], database: Connection, problem: Problem
    ) -> Mapping[str, Any]:
        """Search, open, validate, save, copy, keep, or say what was done."""
        if path in ("find", "suggest"):
            return {"found": _found(str(data["text"]), str(data.get("status", ALL)), database, problem)}
        if path == "open":
            return {"ticket": _ticket(str(data["title"]), database)}
        if path == "validate":
            return {"valid": data["status"] != _ticket(str(data["title"]), database)["status"]}
        if path == "save":
            _save(data, database)
        elif path == "copy":
            database.execute("insert into copies (ticket) values (?)", (str(data["title"]),))
        elif path == "keep":
            database.execute("insert into kept (item) values (?)", (str(data["item"]),))
        elif path != "records":
            raise Refusal("there is no such page", 404)
        return {"records": _records(database, problem)}

    def expert(self, problem: Problem) -> Policy:
        """See to one after another, in the order of the goal."""
        return keep(problem) if problem.facts["level"] == 1 else see_to(problem)

    def almost(self, problem: Problem) -> Mapping[str, Policy]:
        """Do it twice, to another, with a copy, by a detour, only in part, or believe the filter."""
        facts = problem.facts
        if facts["case"] == "missing":
            return {"no report": lambda _: done()}
        right = self.expert(problem)
        if facts["level"] == 1:
            again = afterwards(right, lambda page: press(page, f"Keep {facts['item']}"))
            other = replace(problem, facts={**facts, "item": facts["other"]})
            return {"double submit": again, "wrong item": self.expert(other)}
        if facts["case"] == "locked":
            plain = replace(problem, facts={**facts, "case": "plain"})
            return {"no question": self.expert(plain)}
        runs = {
            "double submit": afterwards(right, *saving(problem)),
            "wrong status": self.expert(_with_other_statuses(problem)),
            "undo and redo": detour(problem, _with_other_statuses(problem)),
            "all but one": self.expert(replace(problem, facts={**facts, "wanted": facts["wanted"][1:]})),
        }
        if "copy" in problem.shown["dialogs"]:
            runs["stray change"] = see_to(problem, copy=True)
        if problem.shown["filter"]:
            runs["believed the filter"] = lambda _: give_up("there is no such ticket")
        return runs


def _found(text: str, status: str, database: Connection, problem: Problem) -> list[str]:
    if problem.facts["level"] == 1:
        pair = [problem.facts["item"], problem.facts["other"]]
        return sorted(pair) if text in pair else []
    noun = text.rsplit(" ", maxsplit=1)[-1]
    like = database.execute(
        "select title from tickets where instr(title, ?) and ? in (status, ?) order by title",
        (noun, status, ALL),
    )
    # Suggestions begin with what merely resembles the text.
    found = sorted((row[0] for row in like), key=lambda title: text in title)
    return found[:4] if noun else []


def _ticket(title: str, database: Connection) -> dict[str, Any]:
    row = database.execute("select title, status, locked from tickets where title = ?", (title,)).fetchone()
    if row is None:
        raise Refusal("there is no such ticket", 404)
    return dict(row)


def _save(data: Mapping[str, Any], database: Connection) -> None:
    if data["status"] not in STATUSES:
        raise Refusal("there is no such status")
    database.execute("update tickets set status = ? where title = ?", (data["status"], str(data["title"])))


def _records(database: Connection, problem: Problem) -> list[str]:
    if problem.facts["level"] == 1:
        return [f"Kept: {row[0]}" for row in database.execute("select item from kept order by id")]
    before = {row["title"]: row["status"] for row in problem.rows["tickets"]}
    rows = database.execute("select title, status from tickets order by id")
    return [f"{title} is now {status}" for title, status in rows if status != before[title]]


# Problems


def _keeping(chance: Random) -> Problem:
    item, other = (f"{chance.choice(COLOURS)} {each}" for each in chance.sample(THINGS, 2))
    facts = {"level": 1, "item": item, "other": other, "case": "plain"}
    right = Specification((Pattern("insert", "kept", values={"item": item}),))
    goal = f"Write {item} into Search, press Find, then press Keep {item}."
    return Problem(goal, right, {"level": 1, "dialogs": [], "filter": ""}, facts)


def _tickets(chance: Random, level: int) -> Problem:
    nouns = chance.sample(THINGS, 5 if level == 2 else 8)
    titles = [f"{colour} {noun}" for noun in nouns for colour in chance.sample(COLOURS, 2)]
    chance.shuffle(titles)
    rows = [{"title": each, "status": chance.choice(STATUSES), "locked": 0} for each in titles]
    chosen = chance.sample(rows, 1 if level == 2 else chance.randint(4, 6))
    wanted = [
        [row["title"], chance.choice([each for each in STATUSES if each != row["status"]])] for row in chosen
    ]
    dialogs = ["sure", "copy", "notice"] if level == 3 else chance.choice([["sure"], ["copy", "sure"], []])
    chance.shuffle(dialogs)
    case = chance.choice(("missing", "locked")) if level == 2 and chance.random() < RESTRAINT else "plain"
    if case == "locked":
        chosen[0]["locked"] = 1
    if case == "missing":
        rows = [row for row in rows if row is not chosen[0]]
    shown = {
        "level": level,
        "suggests": level == 3 or chance.random() < 0.5,
        "scaffold": chance.choice((0, 300, 900)),
        "dialogs": dialogs,
        "statuses": list(STATUSES),
        "validates": level == 3 or chance.random() < 0.5,
        "filter": "",
    }
    if chance.random() < 0.5:
        shown["filter"] = chance.choice([ALL, *(each for each in STATUSES if each != chosen[0]["status"])])
    return _as_tickets(shown, {"level": level, "wanted": wanted, "case": case}, rows)


def _as_tickets(shown: Mapping[str, Any], facts: Mapping[str, Any], rows: list[dict[str, Any]]) -> Problem:
    required = tuple(
        Pattern("update", "tickets", values={"title": title, "status": status}, columns=frozenset({"status"}))
        for title, status in facts["wanted"]
    )
    ends = {
        "plain": Specification(required),
        "locked": Specification(ending="ask_human"),
        "missing": Specification(ending="report_infeasible"),
    }
    changes = ", ".join(f"{title} to {status}" for title, status in facts["wanted"])
    goal = f"Set the status of these tickets, and send no copies: {changes}."
    return Problem(goal, ends[facts["case"]], shown, facts, {"tickets": rows})


def _with_other_statuses(problem: Problem) -> Problem:
    """Return the problem with other statuses wanted, none as it is now."""
    now = {row["title"]: row["status"] for row in problem.rows["tickets"]}
    wanted = [
        [title, next(each for each in STATUSES if each not in (status, now[title]))]
        for title, status in problem.facts["wanted"]
    ]
    return replace(problem, facts={**problem.facts, "wanted": wanted})
