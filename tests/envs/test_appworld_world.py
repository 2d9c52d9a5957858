"""The small world: what splits share, and how solutions and near-misses of every kind are judged."""

from pathlib import Path
from random import Random
from typing import Any

import pytest

from agentrl_appworld.inside.small_world.words import (
    ADJECTIVES,
    NOUNS,
    TENTHS,
    Person,
    people,
    strangers,
    things,
)

LONG = pytest.mark.timeout(1200)
# Of every kind of task, in the order of its difficulty.
KINDS = (
    *("address", "alarm", "fileread", "fileremove", "notewrite", "pay", "text"),
    *("contact", "notepin", "song", "star", "tick"),
    *("approve", "errands", "paylist", "tidy"),
)
NEAR_MISSES = ("wrong", "twice", "stray", "not_completed")
DONE = "apis.supervisor.complete_task()"


@pytest.fixture(scope="module")
def outcomes(small_world: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """Judge what can happen in the first task of each kind, by kind and what happened."""
    cases: dict[tuple[str, str], dict[str, Any]] = {}
    for kind in KINDS:
        task = f"{kind}00_1"
        cases[kind, "solution"] = small_world.job(
            task, *map(small_world.fence, small_world.known(task, "turns"))
        )
        cases[kind, "idle"] = small_world.job(task, small_world.fence(DONE))
        cases[kind, "nothing"] = small_world.job(task)
        for name, code in small_world.known(task, "near_misses").items():
            cases[kind, name] = small_world.job(task, small_world.fence(code))
    return dict(zip(cases, small_world.play_and_judge(list(cases.values())), strict=True))


def test_splits_share_no_person_and_no_thing() -> None:
    for share in (lambda split: {person.name for person in people(split)}, lambda split: set(things(split))):
        sets = [share(split) for split in TENTHS]
        assert len(set().union(*sets)) == sum(map(len, sets))


def test_strangers_of_splits_share_no_name_and_no_number() -> None:
    def met(split: str) -> list[Person]:
        chance = Random(split)
        return [one for _ in range(200) for one in (*strangers(chance, people(split)), *people(split))]

    for share in (lambda each: each.name, lambda each: each.email, lambda each: each.phone_number):
        sets = [{share(each) for each in met(split)} for split in TENTHS]
        assert len(set().union(*sets)) == sum(map(len, sets))
    one, other = strangers(Random(0), people("train"))
    assert one.email != other.email
    assert one.phone_number != other.phone_number
    assert not {one.email, other.email} & {person.email for person in people("train")}


def test_every_split_knows_every_word_that_things_are_named_by() -> None:
    for split in TENTHS:
        assert {word for thing in things(split) for word in thing.split()} == {*ADJECTIVES, *NOUNS}


@LONG
def test_every_task_is_distinct_and_in_one_split(small_world: Any) -> None:
    splits = [set(small_world.ids(split)) for split in TENTHS]
    assert [len(split) for split in splits] == [3 * len(KINDS)] * 3
    assert len(set.union(*splits)) == 9 * len(KINDS)
    specs = [path.read_text(encoding="utf-8") for path in small_world.truth.glob("data/tasks/*/specs.json")]
    assert len(set(specs)) == 9 * len(KINDS)


@LONG
def test_the_same_seed_makes_the_same_tasks_and_another_seed_makes_others(
    small_world: Any, tmp_path: Path
) -> None:
    def tasks(name: str, seed: int) -> dict[str, str]:
        root = tmp_path / name
        small_world.run("-m", "small_world", root, "--seed", seed, "--fewer", 8, "--only", "alarm", "approve")
        files = sorted(path for path in (root / "data" / "tasks").rglob("*") if path.is_file())
        return {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in files}

    first = tasks("first", 0)
    assert first == tasks("again", 0)
    assert first != tasks("other", 1)


@LONG
def test_appworlds_own_verification_passes(small_world: Any) -> None:
    said = small_world.run("-m", "appworld.cli", "verify", "tasks", "--root", small_world.truth)
    number = 6 * len(KINDS)
    assert f"Passed {number}/{number} tasks." in said


@LONG
@pytest.mark.parametrize("kind", KINDS)
def test_the_solution_scores_full_marks(kind: str, outcomes: dict[tuple[str, str], dict[str, Any]]) -> None:
    outcome = outcomes[kind, "solution"]
    assert outcome["success"], outcome
    assert outcome["metrics"]["fraction"] == outcome["metrics"]["asked_fraction"] == 1.0
    assert outcome["metrics"]["collateral_damage"] == outcome["metrics"]["code_errors"] == 0.0


@LONG
@pytest.mark.parametrize("kind", KINDS)
def test_who_does_nothing_fails_and_earns_nothing_that_was_asked_for(
    kind: str, outcomes: dict[tuple[str, str], dict[str, Any]]
) -> None:
    for outcome in (outcomes[kind, "idle"], outcomes[kind, "nothing"]):
        assert not outcome["success"]
        assert outcome["metrics"]["asked_fraction"] == outcome["metrics"]["collateral_damage"] == 0.0


@LONG
@pytest.mark.parametrize("kind", KINDS)
def test_checks_bear_the_labels_of_an_idle_episode(
    kind: str, small_world: Any, outcomes: dict[tuple[str, str], dict[str, Any]]
) -> None:
    labels = {row["requirement"]: row["label"] for row in small_world.known(f"{kind}00_1", "test_data")}
    idle = outcomes[kind, "idle"]
    assert {check for check, label in labels.items() if label == "no_op_pass"} == set(idle["passed"])
    assert {check for check, label in labels.items() if label == "no_op_fail"} == set(idle["failed"])


@LONG
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NEAR_MISSES)
def test_near_misses_fail(kind: str, name: str, outcomes: dict[tuple[str, str], dict[str, Any]]) -> None:
    outcome = outcomes[kind, name]
    assert not outcome["success"]
    if name != "not_completed":
        assert outcome["metrics"]["completed"] == 1.0
    if name == "stray":
        assert outcome["metrics"]["asked_fraction"] == outcome["metrics"]["collateral_damage"] == 1.0


# What else the API that adds a row would do, and nobody asked for.
UNASKED = {
    "alarm": ("apis.phone.create_alarm(", "vibration=False"),
    "notewrite": ("apis.simple_note.create_note(", "pinned=True"),
    "pay": ("apis.venmo.create_transaction(", "private=True"),
    "paylist": ("apis.venmo.create_transaction(", "private=True"),
    "errands": ("apis.todoist.create_task(", "priority='high'"),
}


@LONG
def test_the_right_row_with_what_nobody_asked_for_fails(small_world: Any) -> None:
    jobs = []
    for kind, (call, argument) in UNASKED.items():
        turns = "\n----".join(small_world.known(f"{kind}00_1", "turns"))
        assert call in turns
        said = turns.replace(call, f"{call}{argument}, ").split("\n----")
        jobs.append(small_world.job(f"{kind}00_1", *map(small_world.fence, said)))
    for outcome in small_world.play_and_judge(jobs):
        assert not outcome["success"]
        assert (outcome["metrics"]["completed"], outcome["metrics"]["code_errors"]) == (1.0, 0.0)
