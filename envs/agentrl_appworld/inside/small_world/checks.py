"""AppWorld's evaluation of a task, from what the task says must change; nothing else may."""

from collections.abc import Mapping
from typing import Any

from .scenario import Change, Problem

ANSWER = "assert the answer is the one asked for."
NOTHING_ELSE = "assert nothing changed in tables that the task does not concern."
AS_ASKED = "assert {} changed as asked for."
NO_MORE = "assert {} did not change beyond what was asked for."

# The text of every evaluation.py; what it expects comes from private_data.json.
EVALUATION = f"""
import json

IGNORED = ["updated_at", "search_text"]


def fits(record, fields):
    return all(value == "*" or getattr(record, name) == value for name, value in fields.items())


def all_found(records, rows):
    left = list(records)
    for row in rows:
        found = [index for index, record in enumerate(left) if fits(record, row)]
        if not found:
            return False
        left.pop(found[0])
    return True


def evaluate(test, public_data, private_data, main_user, models, ground_truth_answer):
    expected = private_data["expected"]
    with test({ANSWER!r}):
        predicted = json.loads(models.end.supervisor.Task.first().answer)
        test.answer(predicted, ground_truth_answer)
    with test({NOTHING_ELSE!r}):
        test.case(models.changed_model_names() - set(expected), "==", set())
    for name, change in expected.items():
        added, updated, removed = models.changed_records(name)
        wanted = {{int(key): fields for key, fields in change["updated"].items()}}
        with test({AS_ASKED!r}.format(name)):
            by_id = {{record.id: record for record in updated}}
            test.case(all_found(added, change["added"]), "==", True)
            test.case(all(i in by_id and fits(by_id[i], f) for i, f in wanted.items()), "==", True)
            test.case(set(change["removed"]) <= {{record.id for record in removed}}, "==", True)
        with test({NO_MORE!r}.format(name)):
            test.case(len(added) <= len(change["added"]), "==", True)
            test.case({{record.id for record in updated}} <= set(wanted), "==", True)
            test.case({{record.id for record in removed}} <= set(change["removed"]), "==", True)
            for record in updated:
                names = models.changed_field_names(name, record.id, ignore=IGNORED)
                test.case(names <= set(wanted[record.id]), "==", True)
"""


def test_data(problem: Problem) -> list[dict[str, str]]:
    """Return the requirements, each with whether an episode that only completes the task passes it."""
    asks = problem.answer is not None
    rows = [(ANSWER, asks), (NOTHING_ELSE, False)]
    for name in problem.changes:
        rows += [(AS_ASKED.format(name), True), (NO_MORE.format(name), False)]
    return [{"requirement": text, "label": "no_op_fail" if fails else "no_op_pass"} for text, fails in rows]


def private_data(problem: Problem) -> dict[str, Any]:
    """Return what the evaluation expects, JSON-safe."""
    return {"expected": {name: _plain(change) for name, change in problem.changes.items()}}


def _plain(change: Change) -> Mapping[str, Any]:
    return {
        "added": [dict(row) for row in change.added],
        "updated": {str(key): dict(fields) for key, fields in change.updated.items()},
        "removed": list(change.removed),
    }
