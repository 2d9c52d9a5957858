"""The database of an episode, and the log in which it writes down every change to itself.

Triggers on every table append to the log, so nothing that happened is lost: a row that was inserted and
deleted again shows twice, where a comparison of before and after would show nothing. What is rolled back
was never there. Once the ledger is made, neither the schema nor the log can be changed by SQL.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

Op = Literal["insert", "update", "delete"]
Row = Mapping[str, Any]

LOG = "_log"
ROWIDS = ("rowid", "_rowid_", "oid")
# All that a statement may do once the ledger is made.
PERMITTED = frozenset(
    {
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_INSERT,
        sqlite3.SQLITE_UPDATE,
        sqlite3.SQLITE_DELETE,
        sqlite3.SQLITE_FUNCTION,
        sqlite3.SQLITE_TRANSACTION,
        sqlite3.SQLITE_SAVEPOINT,
        sqlite3.SQLITE_RECURSIVE,
    }
)
WRITES = frozenset({sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE})


class SchemaError(ValueError):
    """The schema holds something whose changes could not be logged."""


@dataclass(frozen=True, slots=True)
class Change:
    """One row that was inserted, updated or deleted.

    Attributes:
        key: the columns of the primary key, or the row id where there is none; before an update.
        old: the whole row before; None for an insert.
        new: the whole row after; None for a delete.
    """

    op: Op
    table: str
    key: Row
    old: Row | None
    new: Row | None

    @property
    def row(self) -> Row:
        """Return the row that it is about: as it is now, or as it was when it was deleted."""
        row = self.old if self.new is None else self.new
        assert row is not None
        return row

    @property
    def touched(self) -> frozenset[str]:
        """Return the columns whose values differ; of a row that came or went, all."""
        if self.old is None or self.new is None:
            return frozenset(self.row)
        return frozenset(column for column in self.new if self.new[column] != self.old[column])


class Ledger:
    """An SQLite database in memory that logs its own changes."""

    def __init__(self, schema: str, rows: Mapping[str, Sequence[Row]] | None = None) -> None:
        """Make the tables, put `rows` into them, and log every change from then on.

        Raises:
            SchemaError: a table cannot be logged; it says which and why.
        """
        self.database = sqlite3.connect(":memory:", isolation_level=None)
        self.database.row_factory = sqlite3.Row
        # Without recursive triggers, the rows that `insert or replace` deletes would go unnoticed.
        self.database.executescript("pragma recursive_triggers=on; pragma foreign_keys=on;")
        self.database.executescript(schema)
        for table, some in (rows or {}).items():
            for row in some:
                self._put(table, row)
        self._watch()
        self.database.set_authorizer(_authorize)

    def _put(self, table: str, row: Row) -> None:
        columns = ", ".join(map(_quoted, row))
        places = ", ".join("?" * len(row))
        self.database.execute(
            f"insert into {_quoted(table)} ({columns}) values ({places})", tuple(row.values())
        )

    def _watch(self) -> None:
        tables = _tables(self.database)
        self.database.execute(
            f"create table {LOG} (n integer primary key, op text, tab text, key text, old text, new text)"
        )
        for table in tables:
            for trigger in _triggers(self.database, table):
                self.database.execute(trigger)

    def changes(self) -> list[Change]:
        """Return what happened so far, in order."""
        found = self.database.execute(f"select op, tab, key, old, new from {LOG} order by n").fetchall()
        return [
            Change(op, table, json.loads(key), _row(old), _row(new)) for op, table, key, old, new in found
        ]

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Return the rows of a table as they are now."""
        return [dict(row) for row in self.database.execute(f"select * from {_quoted(table)}")]

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Keep all changes of the block, or none if it raises."""
        self.database.execute("begin")
        try:
            yield self.database
        except BaseException:
            self.database.execute("rollback")
            raise
        self.database.execute("commit")

    def close(self) -> None:
        """Forget everything."""
        self.database.close()


def _row(text: str | None) -> Row | None:
    return None if text is None else json.loads(text)


def _authorize(action: int, one: str | None, _: str | None, __: str | None, trigger: str | None) -> int:
    """Permit what reads and writes rows; the log is written by triggers alone."""
    if action not in PERMITTED or (action in WRITES and one == LOG and trigger is None):
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


def _tables(database: sqlite3.Connection) -> list[str]:
    tables = []
    for name, kind, temporary in database.execute(_ALL_TABLES).fetchall():
        if kind in ("virtual", "shadow"):
            raise SchemaError(f"table {name!r} is virtual, and triggers cannot log it; make it a plain table")
        if temporary:
            raise SchemaError(f"table {name!r} is temporary and would not be logged; make it a plain table")
        if name.lower() == LOG:
            raise SchemaError(f"table {name!r} has the name of the log; give it another")
        tables.append(name)
    return tables


_ALL_TABLES = """
    select name, type, schema = 'temp' from pragma_table_list
    where type in ('table', 'virtual', 'shadow') and name not like 'sqlite\\_%' escape '\\' order by name
"""


def _triggers(database: sqlite3.Connection, table: str) -> Iterator[str]:
    """Yield the statements that make the triggers of a table."""
    columns = database.execute(f"pragma table_info({_quoted(table)})").fetchall()
    for column in columns:
        if not column["type"] or "BLOB" in column["type"].upper():
            raise SchemaError(
                f"column {column['name']!r} of table {table!r} may hold bytes, which the log cannot; "
                "declare it as text, integer or real"
            )
    names = [column["name"] for column in columns]
    keys = [each["name"] for each in sorted(columns, key=lambda each: each["pk"]) if each["pk"]]
    keys = keys or [_rowid(table, names)]
    for op, before, after in (("insert", "", "new"), ("update", "old", "new"), ("delete", "old", "")):
        values = ", ".join(
            [
                _text(op),
                _text(table),
                _object(before or after, keys),
                _object(before, names),
                _object(after, names),
            ]
        )
        yield (
            f"create trigger {_quoted(f'{LOG}_{op}_{table}')} after {op} on {_quoted(table)} begin "
            f"insert into {LOG} (op, tab, key, old, new) values ({values}); end"
        )


def _rowid(table: str, columns: Sequence[str]) -> str:
    taken = {name.lower() for name in columns}
    for name in ROWIDS:
        if name not in taken:
            return name
    raise SchemaError(f"table {table!r} hides its row id behind columns; give it a primary key")


def _object(row: str, columns: Sequence[str]) -> str:
    if not row:
        return "null"
    return f"json_object({', '.join(f'{_text(each)}, {row}.{_quoted(each)}' for each in columns)})"


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
