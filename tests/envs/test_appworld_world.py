"""The small world and its episodes, played and judged in AppWorld's own interpreter where there is one.

Those tests want AGENTRL_APPWORLD_PYTHON: a python with `appworld` installed and unpacked. They write below a
temporary folder.
"""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from agentrl_appworld.inside import worker
from agentrl_appworld.inside.playground import copy_without_truth
from agentrl_appworld.inside.small_world.words import (
    ADJECTIVES,
    NOUNS,
    TENTHS,
    Person,
    people,
    strangers,
    things,
)

INSIDE = Path(worker.__file__).parent
PYTHON = os.environ.get("AGENTRL_APPWORLD_PYTHON", "")
APPWORLD = pytest.mark.skipif(
    not PYTHON, reason="AGENTRL_APPWORLD_PYTHON names no python that has appworld (see docs/appworld.md)"
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


def run(*arguments: object) -> str:
    done = subprocess.run(
        [PYTHON, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(INSIDE), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def fence(code: str) -> str:
    return f"Let me see.\n```python\n{code}\n```"


class World:
    """A small world, and the copy of it that is played in."""

    def __init__(self, files: Path, folder: Path) -> None:
        self.folder = folder
        self.truth, self.play_root = files / "small", files / "small_play"

    def known(self, task: str, name: str) -> Any:
        path = self.truth / "data" / "tasks" / task / "ground_truth" / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8"))

    def ids(self, split: str) -> list[str]:
        return (self.truth / "data" / "datasets" / f"{split}.txt").read_text(encoding="utf-8").split()

    def play(self, jobs: Sequence[Mapping[str, Any]], parallel: int = 2) -> list[dict[str, Any]]:
        return _calm(self.attempt("play", self.play_root, jobs, parallel))

    def judge(self, jobs: Sequence[Mapping[str, Any]], parallel: int = 2) -> list[dict[str, Any]]:
        return _calm(self.attempt("judge", self.truth, jobs, parallel))

    def play_and_judge(self, jobs: Sequence[dict[str, Any]], parallel: int = 2) -> list[dict[str, Any]]:
        played = self.play(jobs, parallel)
        records = [{**job, "records": each["records"]} for job, each in zip(jobs, played, strict=True)]
        return self.judge(records, parallel)

    def attempt(
        self, what: str, root: Path, jobs: Sequence[Mapping[str, Any]], parallel: int
    ) -> list[dict[str, Any]]:
        (self.folder / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
        files = (self.folder / "jobs.json", self.folder / "results.json")
        run("-m", "trial", what, root, *files, "--parallel", parallel)
        results: list[dict[str, Any]] = json.loads(files[1].read_text(encoding="utf-8"))
        return results


def _calm(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    assert not [result["crash"] for result in results if "crash" in result]
    return results


def job(task: str, *said: str, seed: int = 1, **more: Any) -> dict[str, Any]:
    return {"task": task, "seed": seed, "said": list(said), **more}


@pytest.fixture(scope="module")
def world(appworld_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    (files,) = appworld_cache.glob("agentrl/environments/*/files")
    return World(files, tmp_path_factory.mktemp("trial"))


@pytest.fixture(scope="module")
def outcomes(world: World) -> dict[tuple[str, str], dict[str, Any]]:
    """Judge what can happen in the first task of each kind, by kind and what happened."""
    cases: dict[tuple[str, str], dict[str, Any]] = {}
    for kind in KINDS:
        task = f"{kind}00_1"
        cases[kind, "solution"] = job(task, *map(fence, world.known(task, "turns")))
        cases[kind, "idle"] = job(task, fence(DONE))
        cases[kind, "nothing"] = job(task)
        for name, code in world.known(task, "near_misses").items():
            cases[kind, name] = job(task, fence(code))
    return dict(zip(cases, world.play_and_judge(list(cases.values())), strict=True))


# The world


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


@APPWORLD
@LONG
def test_every_task_is_distinct_and_in_one_split(world: World) -> None:
    splits = [set(world.ids(split)) for split in TENTHS]
    assert [len(split) for split in splits] == [3 * len(KINDS)] * 3
    assert len(set.union(*splits)) == 9 * len(KINDS)
    specs = [path.read_text(encoding="utf-8") for path in world.truth.glob("data/tasks/*/specs.json")]
    assert len(set(specs)) == 9 * len(KINDS)


@APPWORLD
@LONG
def test_the_same_seed_makes_the_same_tasks_and_another_seed_makes_others(tmp_path: Path) -> None:
    def tasks(name: str, seed: int) -> dict[str, str]:
        root = tmp_path / name
        run("-m", "small_world", root, "--seed", seed, "--fewer", 8, "--only", "alarm", "approve")
        files = sorted(path for path in (root / "data" / "tasks").rglob("*") if path.is_file())
        return {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in files}

    first = tasks("first", 0)
    assert first == tasks("again", 0)
    assert first != tasks("other", 1)


@APPWORLD
@LONG
def test_appworlds_own_verification_passes(world: World) -> None:
    said = run("-m", "appworld.cli", "verify", "tasks", "--root", world.truth)
    number = 6 * len(KINDS)
    assert f"Passed {number}/{number} tasks." in said


@APPWORLD
@LONG
@pytest.mark.parametrize("kind", KINDS)
def test_the_solution_scores_full_marks(kind: str, outcomes: dict[tuple[str, str], dict[str, Any]]) -> None:
    outcome = outcomes[kind, "solution"]
    assert outcome["success"], outcome
    assert outcome["metrics"]["fraction"] == outcome["metrics"]["asked_fraction"] == 1.0
    assert outcome["metrics"]["collateral_damage"] == outcome["metrics"]["code_errors"] == 0.0


@APPWORLD
@LONG
@pytest.mark.parametrize("kind", KINDS)
def test_who_does_nothing_fails_and_earns_nothing_that_was_asked_for(
    kind: str, outcomes: dict[tuple[str, str], dict[str, Any]]
) -> None:
    for outcome in (outcomes[kind, "idle"], outcomes[kind, "nothing"]):
        assert not outcome["success"]
        assert outcome["metrics"]["asked_fraction"] == outcome["metrics"]["collateral_damage"] == 0.0


@APPWORLD
@LONG
@pytest.mark.parametrize("kind", KINDS)
def test_checks_bear_the_labels_of_an_idle_episode(
    kind: str, world: World, outcomes: dict[tuple[str, str], dict[str, Any]]
) -> None:
    labels = {row["requirement"]: row["label"] for row in world.known(f"{kind}00_1", "test_data")}
    idle = outcomes[kind, "idle"]
    assert {check for check, label in labels.items() if label == "no_op_pass"} == set(idle["passed"])
    assert {check for check, label in labels.items() if label == "no_op_fail"} == set(idle["failed"])


@APPWORLD
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


@APPWORLD
@LONG
def test_the_right_row_with_what_nobody_asked_for_fails(world: World) -> None:
    jobs = []
    for kind, (call, argument) in UNASKED.items():
        turns = "\n----".join(world.known(f"{kind}00_1", "turns"))
        assert call in turns
        said = turns.replace(call, f"{call}{argument}, ").split("\n----")
        jobs.append(job(f"{kind}00_1", *map(fence, said)))
    for outcome in world.play_and_judge(jobs):
        assert not outcome["success"]
        assert (outcome["metrics"]["completed"], outcome["metrics"]["code_errors"]) == (1.0, 0.0)


# The episode


def test_long_output_is_cut_in_its_middle_and_says_so() -> None:
    text = worker.cut("a" * 500 + "b" * 500, 100)
    assert text == "a" * 50 + "\n[... 900 of 1,000 characters were cut here ...]\n" + "b" * 50
    assert worker.cut("a" * 100, 100) == "a" * 100


def test_an_action_is_known_by_its_calls_or_by_its_code() -> None:
    def call(**data: Any) -> list[dict[str, Any]]:
        return [{"method": "get", "url": "/phone/alarms", "data": data}]

    assert worker.action_key("a", call(x=1, y=2)) == worker.action_key("b", call(y=2, x=1, access_token="t"))
    assert worker.action_key("a", call(x=1)) != worker.action_key("a", call(x=2))
    assert worker.action_key("f( 1 )", []) == worker.action_key("f(1)  # one", [])


def test_the_copy_to_play_in_has_no_ground_truth(tmp_path: Path) -> None:
    task = tmp_path / "whole" / "data" / "tasks" / "a_1"
    (task / "ground_truth").mkdir(parents=True)
    (task / "specs.json").write_text("{}", encoding="utf-8")
    (task / "ground_truth" / "answer.json").write_text("42", encoding="utf-8")
    copy_without_truth(tmp_path / "whole", tmp_path / "copy")
    files = [path.name for path in (tmp_path / "copy").rglob("*") if path.is_file()]
    assert files == ["specs.json"]


@APPWORLD
@LONG
def test_sixteen_episodes_of_one_task_at_once_are_judged_right(world: World) -> None:
    task = "notewrite00_1"
    right = [fence(code) for code in world.known(task, "turns")]
    wrong = fence(world.known(task, "near_misses")["wrong"])
    jobs = [job(task, wrong) if index % 3 == 0 else job(task, *right) for index in range(16)]
    verdicts = [outcome["success"] for outcome in world.play_and_judge(jobs, parallel=16)]
    assert verdicts == [index % 3 != 0 for index in range(16)]
    assert not list((world.play_root / "experiments" / "outputs").iterdir())
    assert not list((world.truth / "experiments" / "outputs").glob("judgement-*"))


@APPWORLD
@LONG
def test_what_an_episode_shows_and_how_it_ends(world: World) -> None:
    limits = {"characters": 200, "seconds": 60, "calls": 5, "errors": None}
    config = {**limits, "play_root": str(world.play_root)}
    said = (
        "I would rather talk.",
        fence("print('x' * 1000)"),
        fence("for _ in range(9): apis.supervisor.show_profile()"),
    )
    later = (fence("while True: pass"), fence("kept = 7"), fence("print(kept)"), fence(DONE))
    hasty = {**config, "seconds": 2}
    played = world.play([job("alarm00_1", *said, config=config), job("alarm00_1", *later, config=hasty)])
    first, second = ([observation["text"] for observation in each["seen"][1:]] for each in played)
    assert worker.NO_CODE in first[0]
    assert "800 of 1,000 characters were cut" in first[1]
    assert "exceeded the limit of 5" in first[2]
    assert "timed out" in second[0]
    assert second[2] == "Output:\n```\n7\n```"
    ends = [[observation["done"] for observation in each["seen"]] for each in played]
    assert ends == [[False] * 4, [False] * 4 + [True]]


@APPWORLD
@LONG
def test_so_many_errors_in_a_row_end_an_episode(world: World) -> None:
    config = {"characters": 200, "seconds": 60, "calls": 5, "play_root": str(world.play_root), "errors": 2}
    said = [fence(code) for code in ("1 / 0", "kept = 7", "kept +", "1 / 0", DONE)]
    (played,) = world.play([job("alarm00_1", *said, config=config)])
    assert [observation["done"] for observation in played["seen"]] == [False] * 4 + [True]
    (judged,) = world.judge([{**job("alarm00_1"), "records": played["records"]}])
    assert not judged["success"]
    assert judged["metrics"]["completed"] == 0
    assert judged["metrics"]["code_errors"] == 0.75


@APPWORLD
@LONG
def test_equal_worlds_have_equal_keys_and_a_change_makes_another(world: World) -> None:
    task = "alarm00_1"
    lines = "\n".join(world.known(task, "turns")).splitlines()
    look, act = "\n".join(lines[:-2]), lines[-2]
    twice = world.play([job(task, fence(look), fence(act)) for _ in range(2)])
    keys = [[observation["state_key"] for observation in each["seen"]] for each in twice]
    assert keys[0] == keys[1]
    assert len(set(keys[0])) == 3
    (other,) = world.play([job(task, fence(look + "  # differently"), fence(act.replace("True", "False")))])
    assert other["seen"][1]["state_key"] == keys[0][1]
    assert other["seen"][2]["state_key"] != keys[0][2]


@APPWORLD
@LONG
def test_states_differ_by_what_can_be_compared_and_are_unknown_where_it_cannot(world: World) -> None:
    codes = ("a = {1, 2}", "a = {2, 1}", "a = {3}", "import json as a", "def a(): pass", "_a = 1")
    played = world.play([job("alarm00_1", fence(code)) for code in codes])
    one, same, other, module, function, hidden = (each["seen"][1]["state_key"] for each in played)
    assert one == same
    assert len({one, other, module, hidden}) == 4
    assert function is None


@APPWORLD
@LONG
def test_what_appworld_itself_stumbles_over_is_a_failure_of_the_code(world: World) -> None:
    task = "pay00_1"
    odd = (
        "print('\\ud83d')",
        "print('\\ud83d\\ude00')",
        "apis.simple_note.show_note(note_id=float('nan'), access_token='x')",
    )
    said = [fence(code) for code in (*odd, *world.known(task, "turns"))]
    (played,) = world.play([job(task, *said)])
    assert all(each["text"].encode() for each in played["seen"])
    (outcome,) = world.judge([{**job(task), "records": played["records"]}])
    assert outcome["success"]


@APPWORLD
@LONG
def test_the_judge_believes_only_calls_that_an_episode_can_make(world: World) -> None:
    task = "pay00_1"
    solution = [fence(code) for code in world.known(task, "turns")]
    played, idle = world.play([job(task, *solution), job(task, fence("print(1)"))])
    honest = played["records"]
    forged = [
        {
            **idle["records"][-1],
            "calls": [{"method": method, "url": url, "data": {}} for method, url in calls],
        }
        for calls in (
            [("post", "/admin/payment_cards"), ("get", "http://example.com/"), ("__init__", "/venmo/x")],
            [("get", "/../supervisor/profile"), ("get", "//example.com/venmo"), ("get", 7)],
        )
    ]
    jobs = [{**job(task), "records": records} for records in ([forged[0]], [forged[1]], honest)]
    first, second, right = world.judge(jobs)
    assert [first["metrics"]["refused_calls"], second["metrics"]["refused_calls"]] == [3.0, 3.0]
    assert not first["success"]
    assert not second["success"]
    assert right["success"]


# What an episode's code may do to a note, so that the judge is not told of it or cannot make it again.
HIDDEN = {
    "calls that are not tracked": "made = create(**note, track=False)",
    "a path that the judge refuses": "made = requester.post('/simple_note/notes?x', data=note)",
    "calls that are forgotten": "made = create(**note); requester.request_tracker.requests.pop()",
}
NOTES = """
create, me = apis.simple_note.create_note, apis.supervisor.show_profile()["email"]
accounts = {each["account_name"]: each["password"] for each in apis.supervisor.show_account_passwords()}
session = apis.simple_note.login(username=me, password=accounts["simple_note"])
note = {"title": "x", "content": "y", "access_token": session["access_token"]}
"""


@APPWORLD
@LONG
def test_what_an_episode_changes_by_other_means_than_its_calls_is_not_judged(world: World) -> None:
    task = "pay00_1"
    solution = [fence(code) for code in world.known(task, "turns")]
    said = [[fence(f"{NOTES}{code}\nprint(made['note_id'])"), *solution] for code in HIDDEN.values()]
    played = world.play([job(task, *each) for each in said])
    assert all("Execution failed" not in each["seen"][1]["text"] for each in played)
    jobs = [{**job(task), "records": each["records"]} for each in played]
    for result in world.attempt("judge", world.truth, jobs, parallel=2):
        assert "cannot be told from its calls" in result["crash"]


@APPWORLD
@LONG
def test_who_logs_out_is_not_logged_out_in_the_next_episode_that_is_judged(world: World) -> None:
    task = "notewrite00_1"
    solution = [fence(code) for code in world.known(task, "turns")]
    out = fence(f"{NOTES}print(apis.simple_note.logout(access_token=note['access_token']))")
    used = fence(f"{NOTES}print(apis.simple_note.search_notes(access_token=note['access_token']))")
    played = world.play([job(task, first, *solution) for first in (out, used)])
    code = (
        "import json, sys, judge\n"
        "root, jobs = sys.argv[1], json.loads(sys.argv[2])\n"
        "judge.preload({'truth_root': root})\n"
        "judged = [judge.judge({'id': task}, 1, records, {}) for task, records in jobs]\n"
        "print(json.dumps([each['success'] for each in judged]))"
    )
    records = json.dumps([[task, each["records"]] for each in played])
    assert json.loads(run("-c", code, world.truth, records).splitlines()[-1]) == [True, True]


@APPWORLD
@LONG
def test_what_was_answered_otherwise_than_in_the_episode_is_not_judged(world: World) -> None:
    task = "pay00_1"
    (played,) = world.play([job(task, *(fence(code) for code in world.known(task, "turns")))])
    (record, *rest) = played["records"]
    assert all(call["answer"].startswith("200 ") for call in record["calls"])
    changed = [{**call, "answer": "200 0123456789ab"} for call in record["calls"]]
    silent = [{**call, "answer": None} for call in record["calls"]]
    jobs = [{**job(task), "records": [{**record, "calls": calls}, *rest]} for calls in (changed, silent)]
    for result in world.attempt("judge", world.truth, jobs, parallel=2):
        assert "cannot be told from its calls" in result["crash"]


@APPWORLD
@LONG
def test_chance_in_the_episodes_code_and_failing_calls_are_judged_like_others(world: World) -> None:
    task = "notewrite00_1"
    chance = "import random\nfor _ in range(7): random.random()"
    failing = "apis.simple_note.show_note(note_id=123456, access_token='nonsense')"
    unknown = "apis.simple_note.show_note(note_id='x/y', access_token='nonsense')"
    said = [fence(code) for code in (chance, failing, unknown, *world.known(task, "turns"))]
    (outcome,) = world.play_and_judge([job(task, *said)])
    assert outcome["success"]
    assert outcome["metrics"]["code_errors"] > 0
