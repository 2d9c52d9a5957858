"""Episodes of the small world: what they show, how they end, and by what they are compared."""

from pathlib import Path
from typing import Any

import pytest

from agentrl_appworld.inside import worker
from agentrl_appworld.inside.playground import copy_without_truth

LONG = pytest.mark.timeout(1200)
DONE = "apis.supervisor.complete_task()"


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


@LONG
def test_sixteen_episodes_of_one_task_at_once_are_judged_right(small_world: Any) -> None:
    task = "notewrite00_1"
    right = [small_world.fence(code) for code in small_world.known(task, "turns")]
    wrong = small_world.fence(small_world.known(task, "near_misses")["wrong"])
    jobs = [
        small_world.job(task, wrong) if index % 3 == 0 else small_world.job(task, *right)
        for index in range(16)
    ]
    verdicts = [outcome["success"] for outcome in small_world.play_and_judge(jobs, parallel=16)]
    assert verdicts == [index % 3 != 0 for index in range(16)]
    assert not list((small_world.play_root / "experiments" / "outputs").iterdir())
    assert not list((small_world.truth / "experiments" / "outputs").glob("judgement-*"))


@LONG
def test_what_an_episode_shows_and_how_it_ends(small_world: Any) -> None:
    limits = {"characters": 200, "seconds": 60, "calls": 5, "errors": None}
    config = {**limits, "play_root": str(small_world.play_root)}
    said = (
        "I would rather talk.",
        small_world.fence("print('x' * 1000)"),
        small_world.fence("for _ in range(9): apis.supervisor.show_profile()"),
    )
    later = (
        small_world.fence("while True: pass"),
        small_world.fence("kept = 7"),
        small_world.fence("print(kept)"),
        small_world.fence(DONE),
    )
    hasty = {**config, "seconds": 2}
    played = small_world.play(
        [
            small_world.job("alarm00_1", *said, config=config),
            small_world.job("alarm00_1", *later, config=hasty),
        ]
    )
    first, second = ([observation["text"] for observation in each["seen"][1:]] for each in played)
    assert worker.NO_CODE in first[0]
    assert "800 of 1,000 characters were cut" in first[1]
    assert "exceeded the limit of 5" in first[2]
    assert "timed out" in second[0]
    assert second[2] == "Output:\n```\n7\n```"
    ends = [[observation["done"] for observation in each["seen"]] for each in played]
    assert ends == [[False] * 4, [False] * 4 + [True]]


@LONG
def test_a_call_that_the_end_of_a_steps_time_interrupts_is_judged_like_others(small_world: Any) -> None:
    task = "pay00_1"
    config = {"characters": 200, "calls": 10_000, "errors": None, "seconds": 2}
    config = {**config, "play_root": str(small_world.play_root)}
    endless = "while True: apis.supervisor.show_profile()"
    said = [small_world.fence(code) for code in (endless, *small_world.known(task, "turns"))]
    jobs = [small_world.job(task, *said, config=config) for _ in range(6)]
    played = small_world.play(jobs)
    interrupted = [each["records"][0]["calls"][-1]["answer"] is None for each in played]
    assert any(interrupted), "time was never up amid a call"
    judged = small_world.judge([{**small_world.job(task), "records": each["records"]} for each in played])
    assert all(outcome["success"] for outcome in judged)


@LONG
def test_so_many_errors_in_a_row_end_an_episode(small_world: Any) -> None:
    config = {
        "characters": 200,
        "seconds": 60,
        "calls": 5,
        "play_root": str(small_world.play_root),
        "errors": 2,
    }
    said = [small_world.fence(code) for code in ("1 / 0", "kept = 7", "kept +", "1 / 0", DONE)]
    (played,) = small_world.play([small_world.job("alarm00_1", *said, config=config)])
    assert [observation["done"] for observation in played["seen"]] == [False] * 4 + [True]
    (judged,) = small_world.judge([{**small_world.job("alarm00_1"), "records": played["records"]}])
    assert not judged["success"]
    assert judged["metrics"]["completed"] == 0
    assert judged["metrics"]["code_errors"] == 0.75


@LONG
def test_equal_worlds_have_equal_keys_and_a_change_makes_another(small_world: Any) -> None:
    task = "alarm00_1"
    lines = "\n".join(small_world.known(task, "turns")).splitlines()
    look, act = "\n".join(lines[:-2]), lines[-2]
    twice = small_world.play(
        [small_world.job(task, small_world.fence(look), small_world.fence(act)) for _ in range(2)]
    )
    keys = [[observation["state_key"] for observation in each["seen"]] for each in twice]
    assert keys[0] == keys[1]
    assert len(set(keys[0])) == 3
    (other,) = small_world.play(
        [
            small_world.job(
                task,
                small_world.fence(look + "  # differently"),
                small_world.fence(act.replace("True", "False")),
            )
        ]
    )
    assert other["seen"][1]["state_key"] == keys[0][1]
    assert other["seen"][2]["state_key"] != keys[0][2]


@LONG
def test_states_differ_by_what_can_be_compared_and_are_unknown_where_it_cannot(small_world: Any) -> None:
    codes = ("a = {1, 2}", "a = {2, 1}", "a = {3}", "import json as a", "def a(): pass", "_a = 1")
    played = small_world.play([small_world.job("alarm00_1", small_world.fence(code)) for code in codes])
    one, same, other, module, function, hidden = (each["seen"][1]["state_key"] for each in played)
    assert one == same
    assert len({one, other, module, hidden}) == 4
    assert function is None


@LONG
def test_what_appworld_itself_stumbles_over_is_a_failure_of_the_code(small_world: Any) -> None:
    task = "pay00_1"
    odd = (
        "print('\\ud83d')",
        "print('\\ud83d\\ude00')",
        "apis.simple_note.show_note(note_id=float('nan'), access_token='x')",
        "apis.simple_note.show_note(note_id=int, access_token='x')",
        "requester.get('/simple_note/notes', data=['x'])",
    )
    said = [small_world.fence(code) for code in (*odd, *small_world.known(task, "turns"))]
    (played,) = small_world.play([small_world.job(task, *said)])
    assert all(each["text"].encode() for each in played["seen"])
    (outcome,) = small_world.judge([{**small_world.job(task), "records": played["records"]}])
    assert outcome["success"]
