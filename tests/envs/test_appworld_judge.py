"""What the judge of AppWorld believes of an episode, and what it refuses to judge."""

import json
from typing import Any

import pytest

LONG = pytest.mark.timeout(1200)


@LONG
def test_the_judge_believes_only_calls_that_an_episode_can_make(small_world: Any) -> None:
    task = "pay00_1"
    solution = [small_world.fence(code) for code in small_world.known(task, "turns")]
    played, idle = small_world.play(
        [small_world.job(task, *solution), small_world.job(task, small_world.fence("print(1)"))]
    )
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
    jobs = [{**small_world.job(task), "records": records} for records in ([forged[0]], [forged[1]], honest)]
    first, second, right = small_world.judge(jobs)
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


@LONG
def test_what_an_episode_changes_by_other_means_than_its_calls_is_not_judged(small_world: Any) -> None:
    task = "pay00_1"
    solution = [small_world.fence(code) for code in small_world.known(task, "turns")]
    said = [
        [small_world.fence(f"{NOTES}{code}\nprint(made['note_id'])"), *solution] for code in HIDDEN.values()
    ]
    played = small_world.play([small_world.job(task, *each) for each in said])
    assert all("Execution failed" not in each["seen"][1]["text"] for each in played)
    jobs = [{**small_world.job(task), "records": each["records"]} for each in played]
    for result in small_world.attempt("judge", small_world.truth, jobs, parallel=2):
        assert "cannot be told from its calls" in result["crash"]


@LONG
def test_who_logs_out_is_not_logged_out_in_the_next_episode_that_is_judged(small_world: Any) -> None:
    task = "notewrite00_1"
    solution = [small_world.fence(code) for code in small_world.known(task, "turns")]
    out = small_world.fence(f"{NOTES}print(apis.simple_note.logout(access_token=note['access_token']))")
    used = small_world.fence(
        f"{NOTES}print(apis.simple_note.search_notes(access_token=note['access_token']))"
    )
    played = small_world.play([small_world.job(task, first, *solution) for first in (out, used)])
    code = (
        "import json, sys, judge\n"
        "root, jobs = sys.argv[1], json.loads(sys.argv[2])\n"
        "judge.preload({'truth_root': root})\n"
        "judged = [judge.judge({'id': task}, 1, records, {}) for task, records in jobs]\n"
        "print(json.dumps([each['success'] for each in judged]))"
    )
    records = json.dumps([[task, each["records"]] for each in played])
    assert json.loads(small_world.run("-c", code, small_world.truth, records).splitlines()[-1]) == [
        True,
        True,
    ]


@LONG
def test_what_was_answered_otherwise_than_in_the_episode_is_not_judged(small_world: Any) -> None:
    task = "pay00_1"
    (played,) = small_world.play(
        [small_world.job(task, *(small_world.fence(code) for code in small_world.known(task, "turns")))]
    )
    (record, *rest) = played["records"]
    assert all(call["answer"].startswith("200 ") for call in record["calls"])
    changed = [{**call, "answer": "200 0123456789ab"} for call in record["calls"]]
    silent = [{**call, "answer": None} for call in record["calls"]]
    jobs = [
        {**small_world.job(task), "records": [{**record, "calls": calls}, *rest]}
        for calls in (changed, silent)
    ]
    for result in small_world.attempt("judge", small_world.truth, jobs, parallel=2):
        assert "cannot be told from its calls" in result["crash"]


@LONG
def test_chance_in_the_episodes_code_and_failing_calls_are_judged_like_others(small_world: Any) -> None:
    task = "notewrite00_1"
    chance = "import random\nfor _ in range(7): random.random()"
    failing = "apis.simple_note.show_note(note_id=123456, access_token='nonsense')"
    unknown = "apis.simple_note.show_note(note_id='x/y', access_token='nonsense')"
    said = [small_world.fence(code) for code in (chance, failing, unknown, *small_world.known(task, "turns"))]
    (outcome,) = small_world.play_and_judge([small_world.job(task, *said)])
    assert outcome["success"]
    assert outcome["metrics"]["code_errors"] > 0
