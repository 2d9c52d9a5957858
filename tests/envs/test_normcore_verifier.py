"""The formal verifier: a log that misses nothing, and specifications that forbid what they do not name."""

import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl_normcore.ledger import Change, Ledger, SchemaError
from agentrl_normcore.specification import Pattern, Specification

SCHEMA = """
create table items (id integer primary key, name text, size integer);
create table places (room text, shelf integer, item text, primary key (room, shelf)) without rowid;
create table notes (text text);
create table owners (name text primary key);
create table pets (name text primary key, owner text references owners on delete cascade);
"""


def ops(ledger: Ledger) -> list[tuple[str, str]]:
    return [(change.op, change.table) for change in ledger.changes()]


# The ledger


def test_rows_that_were_there_before_are_no_change() -> None:
    ledger = Ledger(SCHEMA, {"items": [{"name": "cup", "size": 1}]})
    assert ledger.changes() == []
    assert ledger.rows("items") == [{"id": 1, "name": "cup", "size": 1}]


def test_every_change_is_logged_with_what_was_before_and_after() -> None:
    ledger = Ledger(SCHEMA, {"items": [{"name": "cup", "size": 1}]})
    ledger.database.execute("update items set size = 2")
    ledger.database.execute("delete from items")
    old, new = {"id": 1, "name": "cup", "size": 1}, {"id": 1, "name": "cup", "size": 2}
    assert ledger.changes() == [
        Change("update", "items", {"id": 1}, old, new),
        Change("delete", "items", {"id": 1}, new, None),
    ]


def test_what_is_inserted_and_deleted_again_shows() -> None:
    ledger = Ledger(SCHEMA)
    ledger.database.execute("insert into items (name) values ('cup')")
    ledger.database.execute("delete from items")
    assert ledger.rows("items") == []
    assert ops(ledger) == [("insert", "items"), ("delete", "items")]


def test_a_write_of_what_was_there_already_shows_as_an_update_that_touches_nothing() -> None:
    ledger = Ledger(SCHEMA, {"items": [{"name": "cup", "size": 1}]})
    ledger.database.execute("update items set size = 1")
    [change] = ledger.changes()
    assert change.touched == frozenset()


def test_keys_may_have_several_columns_or_be_row_ids_or_change() -> None:
    ledger = Ledger(SCHEMA)
    ledger.database.execute("insert into places values ('hall', 3, 'cup')")
    ledger.database.execute("update places set shelf = 4")
    ledger.database.execute("insert into notes values ('first'), ('second')")
    keys = [change.key for change in ledger.changes()]
    assert keys == [{"room": "hall", "shelf": 3}, {"room": "hall", "shelf": 3}, {"rowid": 1}, {"rowid": 2}]


def test_rows_that_go_by_replacement_or_cascade_show() -> None:
    rows: dict[str, Any] = {"owners": [{"name": "Ada"}], "pets": [{"name": "Rex", "owner": "Ada"}]}
    ledger = Ledger(SCHEMA, {**rows, "items": [{"id": 1, "name": "cup"}]})
    ledger.database.execute("insert or replace into items (id, name) values (1, 'mug')")
    assert ops(ledger) == [("delete", "items"), ("insert", "items")]
    ledger.database.execute("delete from owners")
    assert sorted(ops(ledger)[2:]) == [("delete", "owners"), ("delete", "pets")]


def test_what_is_rolled_back_was_never_there() -> None:
    ledger = Ledger(SCHEMA)

    def fail() -> None:
        with ledger.transaction() as database:
            database.execute("insert into items (name) values ('cup')")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert ledger.changes() == []


@pytest.mark.parametrize(
    "attack",
    [
        "delete from _log",
        "update _log set op = 'x'",
        "insert into _log (op) values ('x')",
        "drop trigger _log_insert_items",
        "drop table _log",
        "create table other (a text)",
        "pragma writable_schema = on",
        "pragma recursive_triggers = off",
        "attach ':memory:' as other",
        "alter table items rename to things",
    ],
)
def test_no_sql_gets_at_the_log_or_the_schema(attack: str) -> None:
    ledger = Ledger(SCHEMA)
    ledger.database.execute("insert into items (name) values ('cup')")
    with pytest.raises(sqlite3.DatabaseError, match=r"not authorized|prohibited"):
        ledger.database.execute(attack)
    ledger.database.execute("delete from items")
    assert ops(ledger) == [("insert", "items"), ("delete", "items")]


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        ("create table a (x blob)", "may hold bytes"),
        ("create table a (x)", "may hold bytes"),
        ("create virtual table a using fts5(x)", "is virtual"),
        ("create temp table a (x text)", "is temporary"),
        ("create table _LOG (x text)", "the name of the log"),
        ("create table a (rowid text, _rowid_ text, oid text)", "hides its row id"),
    ],
)
def test_a_schema_that_cannot_be_logged_is_refused(schema: str, complaint: str) -> None:
    with pytest.raises(SchemaError, match=complaint):
        Ledger(schema)


def test_names_with_quotes_are_fine() -> None:
    ledger = Ledger("""create table "o'clo""ck" ("it's" text primary key, "select" text)""")
    ledger.database.execute("""insert into "o'clo""ck" values ('a', 'b')""")
    assert ledger.changes()[0].new == {"it's": "a", "select": "b"}


# Specifications


def insert(name: str, size: int = 1, number: int = 1) -> Change:
    return Change("insert", "items", {"id": number}, None, {"id": number, "name": name, "size": size})


def update(before: int, after: int) -> Change:
    row = {"id": 1, "name": "cup", "size": before}
    return Change("update", "items", {"id": 1}, row, {**row, "size": after})


CUP = Pattern("insert", "items", values={"name": "cup"})


def test_exactly_what_is_required_succeeds() -> None:
    assert Specification((CUP,)).verify([insert("cup")], "done").success


def test_the_verdict_says_what_is_missing_and_what_is_forbidden() -> None:
    verdict = Specification((CUP,)).verify([insert("mug")], "done")
    assert not verdict.success
    assert verdict.missing == ("a new row in items with name 'cup'",)
    assert verdict.forbidden == ("insert in items: id 1, name 'mug', size 1",)


def test_the_right_thing_twice_is_wrong() -> None:
    verdict = Specification((CUP,)).verify([insert("cup"), insert("cup", number=2)], "done")
    assert (verdict.missing, len(verdict.forbidden)) == ((), 1)


def test_undoing_and_doing_again_is_wrong() -> None:
    right = Specification((Pattern("update", "items", values={"size": 2}),))
    assert right.verify([update(1, 2)], "done").success
    assert not right.verify([update(1, 2), update(2, 1), update(1, 2)], "done").success


def test_updates_may_be_held_to_columns_and_to_changing_nothing() -> None:
    assert Pattern("update", "items", columns=frozenset({"size"})).matches(update(1, 2))
    assert not Pattern("update", "items", columns=frozenset({"name"})).matches(update(1, 2))
    same = Pattern("update", "items", columns=frozenset())
    assert same.matches(update(1, 1))
    assert not same.matches(update(1, 2))


def test_the_episode_must_end_as_specified() -> None:
    nothing = Specification(ending="ask_human", mentions=("Oak",))
    assert nothing.verify([], "ask_human", "oak or elm?").success
    for ending, said in (("ask_human", "what?"), ("done", ""), ("report_infeasible", "oak"), (None, "")):
        assert not nothing.verify([], ending, said).success


def test_a_wide_pattern_does_not_take_the_only_change_of_a_narrow_one() -> None:
    anything = Pattern("insert", "items")
    for patterns in itertools.permutations([anything, CUP]):
        assert Specification(patterns).verify([insert("cup"), insert("mug", number=2)], "done").success


def test_what_is_allowed_does_not_use_up_what_is_required() -> None:
    big = Pattern("insert", "items", values={"size": 9})
    right = Specification((Pattern("insert", "items"),), allowed=(big,))
    changes = [insert("cup", 9), insert("mug", 1, 2)]
    for order in itertools.permutations(changes):
        assert right.verify(order, "done").success


def test_it_can_be_told_in_words() -> None:
    right = Specification(
        (Pattern("update", "items", {"id": 1}, {"size": 2}, frozenset({"size"})),), (CUP,), mentions=("size",)
    )
    assert right.in_words().splitlines() == [
        "Required, exactly once: an update of a row in items (the one with id 1) with size 2, "
        "nothing but size differing.",
        "Allowed, any number of times: a new row in items with name 'cup'.",
        "Every other change is forbidden.",
        "Required: the end done() about 'size'.",
    ]


# Against an independent check: all ways of handing changes to patterns, tried one by one

NAMES = ("cup", "mug", None)
PATTERNS = st.builds(
    lambda op, name, size: Pattern(
        op,
        "items",
        values={key: value for key, value in (("name", name), ("size", size)) if value is not None},
    ),
    st.sampled_from(["insert", "update", "delete"]),
    st.sampled_from(NAMES),
    st.sampled_from([1, 2, None]),
)
STATEMENTS = st.sampled_from(
    [
        *(f"insert into items (name, size) values ('{n}', {s})" for n in ("cup", "mug") for s in (1, 2)),
        *(f"update items set size = {s} where id = {i}" for s in (1, 2) for i in (1, 2)),
        *(f"delete from items where id = {i}" for i in (1, 2)),
    ]
)


def fits(pattern: Pattern, change: Change) -> bool:
    row = change.new if change.op != "delete" else change.old
    assert row is not None
    return change.op == pattern.op and all(row[key] == value for key, value in pattern.values.items())


def choices(required: Sequence[Pattern], changes: Sequence[Change]) -> Iterator[tuple[int, ...]]:
    for chosen in itertools.permutations(range(len(changes)), len(required)):
        if all(fits(pattern, changes[number]) for pattern, number in zip(required, chosen, strict=True)):
            yield chosen


def independently(required: Sequence[Pattern], allowed: Sequence[Pattern], changes: Sequence[Change]) -> bool:
    return any(
        all(
            number in chosen or any(fits(pattern, change) for pattern in allowed)
            for number, change in enumerate(changes)
        )
        for chosen in choices(required, changes)
    )


@settings(max_examples=300, deadline=None)
@given(
    st.lists(PATTERNS, max_size=3),
    st.lists(PATTERNS, max_size=2),
    st.lists(STATEMENTS, max_size=5),
)
def test_the_verifier_agrees_with_trying_every_assignment(
    required: list[Pattern], allowed: list[Pattern], statements: list[str]
) -> None:
    ledger = Ledger(SCHEMA, {"items": [{"id": 1, "name": "cup", "size": 1}]})
    for statement in statements:
        ledger.database.execute(statement)
    changes = ledger.changes()
    verdict = Specification(tuple(required), tuple(allowed)).verify(changes, "done")
    assert verdict.success == independently(required, allowed, changes)
    assert len(verdict.passed) + len(verdict.missing) == len(required) + 1


@settings(max_examples=100, deadline=None)
@given(st.lists(STATEMENTS, max_size=8))
def test_the_log_played_again_makes_the_same_rows(statements: list[str]) -> None:
    ledger = Ledger(SCHEMA, {"items": [{"id": 1, "name": "cup", "size": 1}]})
    rows = {row["id"]: row for row in ledger.rows("items")}
    for statement in statements:
        ledger.database.execute(statement)
    for change in ledger.changes():
        if change.old is not None:
            assert rows.pop(change.key["id"]) == change.old
        if change.new is not None:
            rows[change.new["id"]] = dict(change.new)
    assert sorted(rows.values(), key=lambda row: row["id"]) == ledger.rows("items")
