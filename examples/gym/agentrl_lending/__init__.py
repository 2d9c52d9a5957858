"""Lending: the right things to the right reader, once, and nothing else.

At level 1 one thing is lent; at level 2 there are more, and the one that is asked for may be out, which is to
be said; at level 3 several are lent, and one of them has to be taken back first.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from random import Random
from sqlite3 import Connection
from typing import Any

from agentrl_browser import View
from agentrl_normcore import Gym, Pattern, Problem, Refusal, Specification
from agentrl_normcore.looking import Policy, afterwards, choose, done, give_up, press
from agentrl_normcore.words import COLOURS, PEOPLE, THINGS

# The share of tasks of level 2 that cannot be done.
OUT = 0.3


class Lending(Gym):
    """Lend things."""

    name = "lending"

    def pose(self, chance: Random, level: int) -> Problem:
        """Draw who is to get what, and what is out already."""
        things = [f"{chance.choice(COLOURS)} {each}" for each in chance.sample(THINGS, 3 + level)]
        reader, other = people = chance.sample(PEOPLE, 2)
        wanted = things[: 1 if level < 3 else 3]
        out = {} if level == 1 else {things[-1]: other}
        if level == 3 or (level == 2 and chance.random() < OUT):
            out[wanted[0]] = other
        rows = [{"name": thing, "reader": out.get(thing, "")} for thing in chance.sample(things, len(things))]
        return _as_problem(level, rows, sorted(people), wanted, reader)

    def answer(
        self, path: str, data: Mapping[str, Any], database: Connection, problem: Problem
    ) -> Mapping[str, Any]:
        """Lend, take back, remind, or say what is out."""
        if path == "lend":
            _lend(data, database)
        elif path == "back":
            database.execute("update things set reader = '' where name = ?", (str(data["thing"]),))
        elif path == "remind":
            database.execute("insert into reminders (thing) values (?)", (str(data["thing"]),))
        elif path != "records":
            raise Refusal("there is no such page", 404)
        return {"records": _records(database.execute("select name, reader from things order by name"))}

    def expert(self, problem: Problem) -> Policy:
        """Choose the reader, and lend until everything is lent."""
        reader, wanted = problem.facts["reader"], problem.facts["wanted"]

        def act(page: View) -> str:
            left = [thing for thing in wanted if not page.says(f"{thing}: {reader}")]
            if not left:
                return done()
            if page.mentions(f"{left[0]}: "):
                return press(page, f"Take back {left[0]}") if problem.facts["back"] else give_up("it is out")
            box = page.find("Reader", "combobox")
            chosen = box is not None and box.value == reader
            return press(page, f"Lend {left[0]}") if chosen else choose(page, "Reader", reader)

        return act

    def almost(self, problem: Problem) -> Mapping[str, Policy]:
        """Lend to somebody else, remind somebody, take back and lend again; or take back what is out."""
        facts = problem.facts
        if facts["out"]:
            return {"taken back": self.expert(_with(problem, back=True))}
        right, last = self.expert(problem), facts["wanted"][-1]
        other = next(each for each in problem.shown["readers"] if each != facts["reader"])
        again = [lambda page: press(page, f"Take back {last}"), lambda page: press(page, f"Lend {last}")]
        return {
            "wrong reader": self.expert(_with(problem, reader=other, back=True)),
            "stray change": afterwards(right, lambda page: press(page, f"Remind of {last}")),
            "undo and redo": afterwards(right, *again),
            "all but one": self.expert(_with(problem, wanted=facts["wanted"][1:])),
        }


def _lend(data: Mapping[str, Any], database: Connection) -> None:
    if not data["reader"]:
        raise Refusal("choose a reader first")
    named = (str(data["reader"]), str(data["thing"]))
    lent = database.execute("update things set reader = ? where name = ? and reader = ''", named)
    if not lent.rowcount:
        raise Refusal(f"{data['thing']} is out", 409)


def _records(things: Iterable[Any]) -> list[str]:
    return [f"{name}: {reader}" for name, reader in things if reader]


def _with(problem: Problem, **facts: Any) -> Problem:
    return replace(problem, facts={**problem.facts, **facts})


def _as_problem(
    level: int, rows: Sequence[Mapping[str, str]], readers: list[str], wanted: list[str], reader: str
) -> Problem:
    """Return the problem, with what has to happen in the tables, and nothing else may."""
    out = {row["name"]: row["reader"] for row in rows if row["reader"]}
    missing = level == 2 and wanted[0] in out
    changes = [_update(thing, "") for thing in wanted if thing in out]
    changes += [_update(thing, reader) for thing in wanted]
    right = Specification(ending="report_infeasible") if missing else Specification(tuple(changes))
    back = f" {wanted[0]} was brought back: take it back first." if level == 3 else ""
    shown = {
        "things": sorted(row["name"] for row in rows),
        "readers": readers,
        "records": _records(sorted(out.items())),
    }
    facts = {"reader": reader, "wanted": wanted, "back": level == 3, "out": missing}
    return Problem(f"Lend to {reader}: {', '.join(wanted)}.{back}", right, shown, facts, {"things": rows})


def _update(thing: str, reader: str) -> Pattern:
    return Pattern("update", "things", {"name": thing}, {"reader": reader}, columns=frozenset({"reader"}))
