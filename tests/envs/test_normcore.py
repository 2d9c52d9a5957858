"""The env normcore, without a browser: tasks, gyms as plugins, conditions, the backend."""

import json
import random
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from agentrl import LazyTasks, Observation
from agentrl.errors import PluginError, UsageError
from agentrl_browser import Request, View
from agentrl_normcore import Gym, Normcore
from agentrl_normcore import gym as gyms
from agentrl_normcore.backend import Backend
from agentrl_normcore.conditions import PROFILES, Conditions, Profile, Weather, draw
from agentrl_normcore.gym import LEVELS, Problem, gym_names, load_gym
from agentrl_normcore.looking import expert
from agentrl_normcore.workload import problem_of, split_of

OURS = ("calendar", "dropdown", "endurance", "forms", "mail")
KINDS = [(name, level) for name in OURS for level in LEVELS]


def env(**options: Any) -> Normcore:
    return Normcore(Normcore.Config(**options))


def posed(name: str, level: int, seed: int) -> Problem:
    return load_gym(name).pose(random.Random(seed), level)


# Tasks


def test_tasks_go_through_gyms_levels_and_profiles_in_turn() -> None:
    tasks = env(levels=(1, 2)).tasks("dev")[:30]
    kinds = Counter((task.labels["skill"], task.difficulty, task.labels["profile"]) for task in tasks)
    assert len(kinds) == 30
    assert {skill for skill, _, _ in kinds} == set(OURS)
    assert {profile for _, _, profile in kinds} == set(PROFILES)


def test_training_is_calm_unless_told_otherwise() -> None:
    assert {task.labels["profile"] for task in env().tasks("train")[:50]} == {"calm"}
    stormy = env(profiles=("hostile",), held_out_profiles=("calm",))
    assert {task.labels["profile"] for task in stormy.tasks("train")[:50]} == {"hostile"}
    assert {task.labels["profile"] for task in stormy.tasks("test")[:50]} == {"calm"}


def test_profiles_are_compared_on_the_same_problems() -> None:
    tasks = env(gyms=("mail",)).tasks("dev")[:3]
    assert [task.labels["profile"] for task in tasks] == ["calm", "shifting", "hostile"]
    assert len({problem_of(task.data).goal for task in tasks}) == 1


def test_splits_share_no_problem() -> None:
    seen: dict[str, str] = {}
    for split in ("train", "dev", "test"):
        for task in env(held_out_profiles=("calm",)).tasks(split)[:200]:
            problem = problem_of(task.data)
            assert split_of(problem) == split
            text = json.dumps([problem.goal, dict(problem.shown), dict(problem.facts)])
            assert seen.setdefault(text, split) == split


def test_a_gym_with_too_few_problems_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    calendar = load_gym("calendar")
    problem = posed("calendar", 1, 0)
    monkeypatch.setattr(calendar, "pose", lambda chance, level: problem)
    elsewhere = next(split for split in ("dev", "test") if split != split_of(problem))
    with pytest.raises(PluginError, match="has no problem of level 1"):
        problem_of({"gym": "calendar", "level": 1, "profile": "calm", "seed": f"{elsewhere}/0/0"})


def test_tasks_are_lazy_and_can_be_sliced() -> None:
    tasks = env().tasks("train")
    assert len(tasks) == 1_000_000
    assert isinstance(tasks[5:9], LazyTasks)
    assert [task.id for task in tasks[5:9]] == [tasks[place].id for place in range(5, 9)]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="no split 'valid': there is train, dev, test"):
        env().tasks("valid")
    with pytest.raises(UsageError, match="no gym 'calender'; did you mean 'calendar'"):
        env(gyms=("calender",)).tasks("train")
    with pytest.raises(UsageError, match="no gym 'x'; there is: calendar, dropdown"):
        env(gyms=("x",)).tasks("train")
    with pytest.raises(ValidationError, match="no profile 'stormy'"):
        env(profiles=("stormy",))
    with pytest.raises(ValidationError, match="levels are 1, 2, 3"):
        env(levels=(4,))


@pytest.mark.parametrize(("name", "level"), KINDS)
def test_problems_are_json_safe_repeatable_and_plenty(name: str, level: int) -> None:
    problems = [posed(name, level, seed) for seed in range(60)]
    assert problems == [posed(name, level, seed) for seed in range(60)]
    texts = {json.dumps([each.goal, dict(each.shown), dict(each.facts)]) for each in problems}
    assert len(texts) >= 55


@pytest.mark.parametrize("name", OURS)
def test_level_1_names_what_to_act_on_and_is_never_to_be_left_undone(name: str) -> None:
    for seed in range(60):
        problem = posed(name, 1, seed)
        assert problem.specification.ending == "done"
        assert "press" in problem.goal
        assert len(problem.goal) < 80


def test_some_tasks_of_every_gym_are_not_to_be_done() -> None:
    for name in OURS:
        endings = Counter(posed(name, level, n).specification.ending for level in (2, 3) for n in range(150))
        assert endings["done"] > 150
        assert endings["report_infeasible"] > 3
        assert endings["ask_human"] > 3


def test_the_specification_of_a_task_can_be_told_in_words() -> None:
    task = env(gyms=("calendar",)).tasks("dev")[0]
    day = problem_of(task.data).facts["first"]
    assert env().explain(task).splitlines() == [
        f"Required, exactly once: a new row in bookings with room '', first {day!r}, last {day!r}.",
        "Every other change is forbidden.",
        "Required: the end done().",
    ]


@pytest.mark.parametrize(("name", "level"), KINDS)
def test_a_required_row_is_required_to_the_last_column(name: str, level: int) -> None:
    gym, database = load_gym(name), sqlite3.connect(":memory:")
    database.executescript(gym.schema())
    for number in range(30):
        for pattern in gym.pose(random.Random(number), level).specification.required:
            columns = database.execute(f"pragma table_info({pattern.table})").fetchall()
            free = {column[1] for column in columns if not column[5]} - set(pattern.values)
            assert pattern.op == "update" or not free


# Gyms are plugins


class Empty(Gym):
    name = "empty"

    def pose(self, chance: random.Random, level: int) -> Problem:
        raise NotImplementedError

    def answer(self, path: str, data: Any, database: Any, problem: Problem) -> Mapping[str, Any]:
        raise NotImplementedError

    def expert(self, problem: Problem) -> Any:
        raise NotImplementedError

    def almost(self, problem: Problem) -> Mapping[str, Any]:
        raise NotImplementedError


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Have other entry points found."""

    def find(*points: tuple[str, str]) -> None:
        found = [EntryPoint(name, value, gyms.GROUP) for name, value in points]
        monkeypatch.setattr(gyms, "entry_points", lambda group: found)

    load_gym.cache_clear()
    monkeypatch.setitem(sys.modules, "strangers_gym", sys.modules[__name__])
    yield find
    load_gym.cache_clear()


def test_gyms_are_found_by_their_entry_points(elsewhere: Any) -> None:
    assert set(OURS) <= set(gym_names())
    elsewhere(("empty", "strangers_gym:Empty"))
    assert gym_names() == ("empty",)
    assert isinstance(load_gym("empty"), Empty)
    assert load_gym("empty").folder == Path(__file__).parent


@pytest.mark.parametrize(
    ("points", "complaint"),
    [
        ([("a", "strangers_gym:Empty"), ("a", "strangers_gym:Other")], "two gyms are called 'a'"),
        ([("a", "no_such_module:Gym")], "could not be made: ModuleNotFoundError"),
        ([("a", "strangers_gym:KINDS")], "could not be made: TypeError"),
        ([("a", "builtins:dict")], "is not a subclass of agentrl_normcore.Gym"),
    ],
)
def test_a_gym_that_cannot_be_used_is_named(elsewhere: Any, points: Any, complaint: str) -> None:
    elsewhere(*points)
    with pytest.raises(PluginError, match=complaint):
        load_gym("a")


# Conditions


def test_nothing_happens_where_it_is_calm() -> None:
    for seed in range(50):
        conditions = draw(PROFILES["calm"], str(seed))
        assert conditions.names == ()
        assert Weather(conditions).next("x", writes=True) == (0, "")


def test_conditions_are_drawn_by_seed_and_each_is_sometimes_on() -> None:
    for name in ("shifting", "hostile"):
        drawn = [draw(PROFILES[name], str(seed)) for seed in range(200)]
        assert drawn == [draw(PROFILES[name], str(seed)) for seed in range(200)]
        counts = Counter(each for conditions in drawn for each in conditions.names)
        share = PROFILES[name].share * 200
        assert all(share * 0.7 < count < share * 1.3 for count in counts.values())
    assert set(counts) == {
        "latency", "refused", "lost", "redraws", "slips", "popups", "shifts", "zoom", "scaffold"
    }  # fmt: skip


def test_whether_one_condition_is_on_does_not_depend_on_others() -> None:
    both, one = Profile("p", 0.5, refused=0.1, popups=2), Profile("p", 0.5, popups=2)
    for seed in range(50):
        assert ("popups" in draw(both, str(seed)).names) == ("popups" in draw(one, str(seed)).names)


def test_the_weather_of_a_path_does_not_depend_on_other_requests() -> None:
    conditions = Conditions(seed=3, latency_ms=500, refused=0.3, lost=0.3)
    alone, among = Weather(conditions), Weather(conditions)
    answers = [alone.next("save", writes=True) for _ in range(40)]
    mixed = []
    for _ in range(40):
        among.next("find", writes=True)
        mixed.append(among.next("save", writes=True))
    assert mixed == answers
    assert {fault for _, fault in answers} == {"", "refused", "lost"}


def test_faults_do_not_go_on_for_ever() -> None:
    weather = Weather(Conditions(seed=1, refused=1.0))
    faults = [weather.next("save", writes=True)[1] for _ in range(9)]
    assert faults == ["refused", "refused", ""] * 3


# The backend


def ask(backend: Backend, path: str, **data: Any) -> tuple[int, Any]:
    response = backend.answer(Request("POST", f"/api/{path}", body=json.dumps(data).encode()))
    return response.status, json.loads(response.body)


def test_the_backend_serves_the_page_and_nothing_else() -> None:
    backend = Backend(load_gym("calendar"), posed("calendar", 1, 0), Conditions())
    assert "<!doctype html>" in str(backend.answer(Request("GET", "/")).body)
    assert backend.answer(Request("GET", "/etc/passwd")).status == 404
    assert ask(backend, "no-such-thing")[0] == 404
    assert backend.answer(Request("POST", "/api/book", body=b"[1]")).status == 400


def test_a_refused_request_does_nothing_and_a_lost_one_does_it_unseen() -> None:
    problem = posed("calendar", 1, 0)
    day = problem.facts["first"]
    for conditions, status, rows in ((Conditions(refused=1.0), 503, 0), (Conditions(lost=1.0), 504, 1)):
        backend = Backend(load_gym("calendar"), problem, conditions)
        assert ask(backend, "book", room="", first=day, last=day)[0] == status
        assert len(backend.ledger.rows("bookings")) == rows


def test_the_state_key_tells_databases_and_weather_apart() -> None:
    problem = posed("mail", 1, 0)
    one, other = (Backend(load_gym("mail"), problem, Conditions()) for _ in range(2))
    assert one.state_key() == other.state_key()
    ask(one, "records")
    assert one.state_key() != other.state_key()
    ask(other, "records")
    assert one.state_key() == other.state_key()
    ask(one, "draft", to="x")
    assert one.state_key() != other.state_key()


# What the expert sees and says

PAGE = """\
Goal: Write Rome into City.
Error: element 9 is not there
RootWebArea 'It\\'s', url='/'
	[1] textbox 'City', value='O\\'Neill', focused
	[2] checkbox 'Bill', checked='true'
	StaticText 'Saved: Rome'
	[3] button 'Save', disabled=True
"""


def test_a_page_is_read_line_by_line() -> None:
    page = View.of(PAGE)
    field, tick, button = page.all()
    assert (field.bid, field.name, field.value) == ("1", "City", "O'Neill")
    assert tick.checked
    assert button.disabled
    assert page.texts() == ["Saved: Rome"]
    assert page.says("Saved: Rome")
    assert not page.says("Saved")
    assert page.mentions("Saved")


def test_an_expert_answers_with_one_call_that_names_what_it_acts_on() -> None:
    act = expert(load_gym("forms").expert(posed("forms", 1, 0)))
    field = posed("forms", 1, 0).shown["fields"][0]
    value = posed("forms", 1, 0).facts["address"][field]
    line = f"[4] textbox '{field}', value=''"
    assert act(Observation(f"RootWebArea 'x'\n\t{line}")) == f"fill('{field}', '{value}')"
