"""Forms: an address to which a parcel can be delivered, saved once.

Postcodes are checked by country, and choosing the country empties them. At level 3 the address has to be
found among cards of which some cannot be used: nobody lives there any more, or it is a box at the post
office. Where none or several can be used, the right end is to say so or to ask.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from sqlite3 import Connection
from typing import Any

from agentrl_browser import View
from agentrl_normcore.gym import Gym, Problem, Refusal
from agentrl_normcore.looking import Policy, afterwards, ask, done, give_up, press
from agentrl_normcore.specification import Pattern, Specification
from agentrl_normcore.words import CITIES, FAMILIES, PEOPLE, STREETS

from .expert import not_yet_written

FIELDS = ("Name", "Street", "House", "Postcode", "City")
SHORT = ("City", "House", "Name", "Street")
# How postcodes are written: 9 stands for a digit, A for a letter.
COUNTRIES = {"Germany": "99999", "Netherlands": "9999 AA", "Denmark": "9999", "Portugal": "9999-999"}
FLAWS = ("moved away", "post office box", "closed for good", "old address", "house was sold")
# How many of the cards can be used; the right end of the first is to ask, of the second to give up.
USABLE = (1, 1, 1, 1, 2, 0)

Address = dict[str, str]


class Forms(Gym):
    """Save an address."""

    name = "forms"

    def pose(self, chance: Random, level: int) -> Problem:
        """Draw an address and how one gets to know it."""
        return {1: _short, 2: _told, 3: _found}[level](chance)

    def answer(
        self, path: str, data: Mapping[str, Any], database: Connection, problem: Problem
    ) -> Mapping[str, Any]:
        """Save, delete, subscribe, or say what is saved."""
        if path == "save":
            _save(data, database, problem)
        elif path == "subscribe":
            database.execute("insert into subscriptions (name) values (?)", (str(data["name"]),))
        elif path == "delete":
            database.execute("delete from addresses where id = (select max(id) from addresses)")
        elif path != "records":
            raise Refusal("there is no such page", 404)
        return {"records": _records(database, problem)}

    def expert(self, problem: Problem) -> Policy:
        """Write until every field is right, save until it is saved."""
        facts = problem.facts

        def act(page: View) -> str:
            if facts["case"] == "none":
                return give_up("no address can be used")
            if facts["case"] == "several":
                return ask("Several addresses can be used. Which one?")
            if page.says(_record(problem)):
                return done()
            return not_yet_written(page, problem) or press(page, "Save")

        return act

    def almost(self, problem: Problem) -> Mapping[str, Policy]:
        """Save it twice, with one field wrong, with something else, after deleting it; or a useless one."""
        facts = problem.facts
        if facts["case"] != "plain":
            address = facts["others"][0] if facts["case"] == "none" else facts["address"]
            return {"no word": self.expert(_with(problem, address))}
        right = self.expert(problem)
        last = problem.shown["fields"][-1]
        wrong = {**facts["address"], last: facts["address"][last] + "s"}
        runs = {
            "double submit": afterwards(right, lambda page: press(page, "Save")),
            "one field wrong": self.expert(_with(problem, wrong)),
        }
        if facts["level"] > 1:
            runs["stray change"] = afterwards(right, lambda page: press(page, "Get our news"))
            runs["undo and redo"] = afterwards(right, lambda page: press(page, "Delete last address"))
        if facts["others"]:
            runs["useless address"] = self.expert(_with(problem, facts["others"][0]))
        return runs


def _with(problem: Problem, address: Address) -> Problem:
    return replace(problem, facts={**problem.facts, "address": address, "case": "plain"})


def _save(data: Mapping[str, Any], database: Connection, problem: Problem) -> None:
    for name in problem.shown["fields"]:
        if not str(data[name]).strip():
            raise Refusal(f"{name} is empty")
    country = str(data["Country"])
    if problem.shown["countries"]:
        if country not in COUNTRIES:
            raise Refusal("choose a country first")
        if not _is_postcode(str(data["Postcode"]), country):
            raise Refusal(f"that is no postcode of {country}")
    columns = [*(name.lower() for name in FIELDS), "country", "billing"]
    row = [str(data.get(name, "")).strip() for name in FIELDS]
    database.execute(
        f"insert into addresses ({', '.join(columns)}) values (?, ?, ?, ?, ?, ?, ?)",
        [*row, country, int(bool(data["billing"]))],
    )


def _is_postcode(text: str, country: str) -> bool:
    pattern = COUNTRIES[country].replace("9", "[0-9]").replace("A", "[A-Z]")
    return re.fullmatch(pattern, text) is not None


def _records(database: Connection, problem: Problem) -> list[str]:
    names = [*(each.lower() for each in problem.shown["fields"]), "country", "billing"]
    rows = database.execute(f"select {', '.join(names)} from addresses order by id").fetchall()
    return [_shown([*row[:-1], "billed" if row[-1] else ""]) for row in rows]


def _shown(parts: Sequence[str]) -> str:
    return "Saved: " + ", ".join(part for part in parts if part)


def _record(problem: Problem) -> str:
    facts, address = problem.facts, problem.facts["address"]
    parts = [address[name] for name in problem.shown["fields"]]
    return _shown([*parts, address.get("Country", ""), "billed" if facts["level"] == 3 else ""])


# Problems


def _short(chance: Random) -> Problem:
    address = {
        "City": chance.choice(CITIES),
        "House": str(chance.randint(1, 60)),
        "Name": chance.choice(PEOPLE),
        "Street": chance.choice(STREETS).split()[0],
    }
    fields = chance.sample(SHORT, 2)
    first, second = fields
    goal = f"Write {address[first]} into {first} and {address[second]} into {second}, then press Save."
    return _as_problem(goal, 1, {name: address[name] for name in fields}, fields)


def _address(chance: Random, name: str) -> Address:
    country = chance.choice(list(COUNTRIES))
    digits = "".join(
        {"9": str(chance.randint(1, 9)), "A": chance.choice("BCDFGHJK")}.get(each, each)
        for each in COUNTRIES[country]
    )
    return {
        "Name": name,
        "Street": chance.choice(STREETS),
        "House": str(chance.randint(1, 99)),
        "Postcode": digits,
        "City": chance.choice(CITIES),
        "Country": country,
    }


def _told(chance: Random) -> Problem:
    address = _address(chance, _person(chance))
    told = ", ".join(f"{name} {value}" for name, value in address.items())
    return _as_problem(f"Save this address once: {told}.", 2, address, FIELDS, resets=chance.randint(0, 1))


def _person(chance: Random) -> str:
    return f"{chance.choice(PEOPLE)} {chance.choice(FAMILIES)}"


def _found(chance: Random) -> Problem:
    name = _person(chance)
    usable = chance.choice(USABLE)
    addresses = [_address(chance, name) for _ in range(chance.randint(3, 4))]
    flaws = chance.sample(FLAWS, len(addresses) - usable)
    cards = [_card(each) for each in addresses[:usable]]
    cards += [f"{_card(each)} ({flaw})" for each, flaw in zip(addresses[usable:], flaws, strict=True)]
    chance.shuffle(cards)
    goal = f"Save the address that a parcel to {name} can be delivered to, once, and bill it there."
    case = {0: "none", 1: "plain", 2: "several"}[usable]
    hidden: dict[str, Any] = {
        "cards": cards,
        "others": addresses[usable:],
        "case": case,
        "resets": chance.randint(0, 2),
    }
    return _as_problem(goal, 3, addresses[0], FIELDS, **hidden)


def _card(address: Address) -> str:
    street, city = f"{address['Street']} {address['House']}", f"{address['Postcode']} {address['City']}"
    return f"{address['Name']}: {street}, {city}, {address['Country']}"


def _as_problem(
    goal: str,
    level: int,
    address: Address,
    fields: Sequence[str],
    cards: Sequence[str] = (),
    others: Sequence[Address] = (),
    case: str = "plain",
    resets: int = 0,
) -> Problem:
    empty = dict.fromkeys((*FIELDS, "Country"), "")
    written = {name.lower(): value for name, value in {**empty, **address}.items()}
    values = {**written, "billing": int(level == 3)}
    ends = {
        "plain": Specification((Pattern("insert", "addresses", values=values),)),
        "none": Specification(ending="report_infeasible"),
        "several": Specification(ending="ask_human"),
    }
    shown = {
        "level": level,
        "fields": list(fields),
        "countries": list(COUNTRIES) if level > 1 else None,
        "cards": list(cards),
        "resets": resets,
    }
    facts = {"level": level, "address": address, "others": list(others), "case": case}
    return Problem(goal, ends[case], shown, facts)
