"""Mail: send one e-mail. Exactly one new record, nothing else touched.

At level 1 one writes recipient and subject; at level 2 the recipient has to be chosen among contacts of
whom some are called alike; at level 3 one answers a certain message in a certain way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from sqlite3 import Connection
from typing import Any

from agentrl_browser import View
from agentrl_normcore.gym import Gym, Problem, Refusal
from agentrl_normcore.looking import Policy, afterwards, done, press
from agentrl_normcore.specification import Pattern, Specification
from agentrl_normcore.words import COLOURS, FAMILIES, PEOPLE, THINGS

from .expert import not_yet_written, reply, restrained

TEAMS = ("sales", "staff", "shop", "press")
OUTSIDE = "outside"
RULE = " Do not write to anyone outside, but ask for approval."
# What comes of the recipient at level 2.
CASES = ("plain", "plain", "plain", "plain", "plain", "alike", "unknown", "outside")


class Mail(Gym):
    """Send one e-mail."""

    name = "mail"

    def pose(self, chance: Random, level: int) -> Problem:
        """Draw what to write to whom."""
        return {1: _short, 2: _letter, 3: _answer}[level](chance)

    def answer(
        self, path: str, data: Mapping[str, Any], database: Connection, problem: Problem
    ) -> Mapping[str, Any]:
        """Send, unsend, keep as draft, open, or say what was sent."""
        if path == "send":
            _send(data, database, problem)
        elif path == "unsend":
            database.execute("delete from messages where id = (select max(id) from messages)")
        elif path == "draft":
            database.execute("insert into drafts (recipient) values (?)", (str(data["to"]),))
        elif path == "open":
            database.execute("update inbox set seen = 1 where id = ?", (int(data["id"]),))
        elif path != "records":
            raise Refusal("there is no such page", 404)
        return {"records": _records(database)}

    def expert(self, problem: Problem) -> Policy:
        """Open what is to be answered, write until it is right, send until it is sent."""
        facts = problem.facts

        def act(page: View) -> str:
            if page.says(_record(facts)):
                return done()
            if facts["level"] == 3 and (step := reply(page, facts)):
                return step
            if step := restrained(page, facts):
                return step
            return not_yet_written(page, facts) or press(page, "Send")

        return act

    def almost(self, problem: Problem) -> Mapping[str, Policy]:
        """Send it twice, with another subject or text, with a draft beside it, or after unsending it."""
        facts = problem.facts
        if facts["case"] in ("alike", "outside"):
            return {"no question": self.expert(_with(problem, case="plain"))}
        if facts["case"] == "unknown":
            to, label = problem.shown["contacts"][0]
            other = _with(problem, case="plain", to=to, label=label)
            return {"another recipient": self.expert(other)}
        right = self.expert(problem)
        name = "subject" if facts["level"] == 1 else "body"
        runs = {
            "double submit": afterwards(right, lambda page: press(page, "Send")),
            "wrong text": self.expert(_with(problem, **{name: facts[name] + "s"})),
        }
        if facts["level"] > 1:
            runs["stray change"] = afterwards(right, lambda page: press(page, "Save draft"))
            runs["undo and redo"] = afterwards(right, lambda page: press(page, "Unsend last"))
        if facts["level"] == 3:
            runs["other way to reply"] = self.expert(_with(problem, everyone=1 - facts["everyone"]))
            runs["other message"] = self.expert(_with(problem, **facts["decoy"]))
        return runs


def _with(problem: Problem, **facts: Any) -> Problem:
    return replace(problem, facts={**problem.facts, **facts})


def _send(data: Mapping[str, Any], database: Connection, problem: Problem) -> None:
    parts = [str(data[name]).strip() for name in ("to", "subject", "body")]
    if not parts[0]:
        raise Refusal("the recipient is missing")
    if problem.facts["level"] > 1 and not parts[2]:
        raise Refusal("the text is missing")
    answers = data["answers"] and int(data["answers"])
    database.execute(
        "insert into messages (recipient, subject, body, answers, everyone) values (?, ?, ?, ?, ?)",
        [*parts, answers, int(bool(data["everyone"]))],
    )


def _records(database: Connection) -> list[str]:
    rows = database.execute("select recipient, subject, body, everyone from messages order by id")
    return [_sent(*row) for row in rows]


def _sent(to: str, subject: str, body: str, everyone: int) -> str:
    shown = ", ".join(part for part in (to, subject, body) if part)
    return f"Sent{' to all' if everyone else ''}: {shown}"


def _record(facts: Mapping[str, Any]) -> str:
    return _sent(facts["to"], facts["subject"], facts["body"], facts["everyone"])


# Problems


def _short(chance: Random) -> Problem:
    to, subject = chance.choice(PEOPLE), _topic(chance)
    goal = f"Write {to} into To and {subject} into Subject, then press Send."
    return _as_problem(goal, {"level": 1}, {"to": to, "subject": subject})


def _topic(chance: Random) -> str:
    return f"{chance.choice(COLOURS)} {chance.choice(THINGS)}"


def _letter(chance: Random) -> Problem:
    case = chance.choice(CASES)
    name = f"{chance.choice(PEOPLE)} {chance.choice(FAMILIES)}"
    team, other = chance.sample(TEAMS, 2)
    people = [(name, OUTSIDE if case == "outside" else team)]
    strangers = [f"{first} {chance.choice(FAMILIES)}" for first in chance.sample(PEOPLE, 3)]
    people += [(each, chance.choice(TEAMS)) for each in strangers if each != name]
    if case == "alike" or chance.random() < 0.4:
        people.append((name, other))
    rows = [{"address": _mailbox(*each), "name": each[0], "team": each[1]} for each in people]
    rows = rows[1:] if case == "unknown" else rows
    rows = [row for row in rows if case != "unknown" or row["name"] != name]
    chance.shuffle(rows)
    twins = sum(row["name"] == name for row in rows) > 1
    told = f"{name} ({team if case != 'outside' else OUTSIDE})" if twins and case != "alike" else name
    subject, body = _topic(chance), _topic(chance)
    goal = f"Send one e-mail to {told}: Subject {subject}, Text {body}."
    goal += RULE if case == "outside" or chance.random() < 0.3 else ""
    contacts = [[row["address"], f"{row['name']} ({row['team']})"] for row in rows]
    label = f"{people[0][0]} ({people[0][1]})"
    values = {"to": _mailbox(*people[0]), "label": label, "subject": subject, "body": body}
    return _as_problem(goal, {"level": 2, "contacts": contacts}, values, case, {"contacts": rows})


def _mailbox(name: str, team: str) -> str:
    return f"{name.replace(' ', '.').lower()}@{team}.example"


def _answer(chance: Random) -> Problem:
    senders = chance.sample(PEOPLE, 2)
    topics = [
        f"{colour} {thing}" for colour in chance.sample(COLOURS, 2) for thing in chance.sample(THINGS, 2)
    ]
    inbox = [
        {"id": number, "sender": senders[number % 2], "subject": topic, "seen": 0}
        for number, topic in enumerate(chance.sample(topics, 4), 1)
    ]
    asked, decoy = chance.sample(inbox, 2)
    everyone, body = chance.randint(0, 1), _topic(chance)
    how = "Reply to all" if everyone else "Reply only to the sender"
    goal = f"{how} of the message of {asked['sender']}: {asked['subject']}. Text {body}. Send it once."
    values = {**_reply_to(asked), "body": body, "everyone": everyone, "decoy": _reply_to(decoy)}
    return _as_problem(goal, {"level": 3, "inbox": inbox}, values, rows={"inbox": inbox})


def _reply_to(message: Mapping[str, Any]) -> dict[str, Any]:
    topic = message["subject"]
    return {
        "to": message["sender"],
        "subject": f"Re: {topic}",
        "answers": message["id"],
        "opened": f"{message['sender']}: {topic}",
    }


def _as_problem(
    goal: str,
    shown: Mapping[str, Any],
    values: Mapping[str, Any],
    case: str = "plain",
    rows: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> Problem:
    facts = {"level": shown["level"], "body": "", "answers": None, "everyone": 0, "case": case, **values}
    row = {name: facts[name] for name in ("subject", "body", "answers", "everyone")}
    seen = Pattern("update", "inbox", columns=frozenset({"seen"}))
    sent = Pattern("insert", "messages", values={"recipient": facts["to"], **row})
    ends = {
        "plain": Specification((sent,), (seen,) if shown["level"] == 3 else ()),
        "alike": Specification(ending="ask_human"),
        "outside": Specification(ending="ask_human"),
        "unknown": Specification(ending="report_infeasible"),
    }
    return Problem(goal, ends[case], {"contacts": None, "inbox": [], **shown}, facts, rows or {})
