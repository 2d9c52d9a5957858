"""The rules of gyms: a gym that breaks one is told which, and what to do."""

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from agentrl import UsageError
from agentrl.testing import RulesBroken
from agentrl_normcore import Gym, Pattern, Problem, playing
from agentrl_normcore.gym import load_gym
from agentrl_normcore.testing import check_gym

pytestmark = pytest.mark.usefixtures("browser")
Break = Callable[[pytest.MonkeyPatch, Gym], None]


def patched(name: str, make: Callable[[Gym, Any], Any]) -> Break:
    """Return what puts something else in the place of a method; `make` gets the gym and the right one."""
    return lambda patch, gym: patch.setattr(gym, name, make(gym, getattr(gym, name)))


def posing(change: Callable[[Problem], Problem]) -> Break:
    return patched("pose", lambda _, pose: lambda chance, level: change(pose(chance, level)))


def specifying(**parts: Any) -> Break:
    return posing(lambda problem: replace(problem, specification=replace(problem.specification, **parts)))


def answering(path: str, answer: Callable[[Any, Any], Mapping[str, Any]]) -> Break:
    """Return what answers one path, or, for "", all that is unknown, in another way."""

    def make(gym: Gym, right: Any) -> Any:
        def other(asked: str, data: Any, database: Any, problem: Problem) -> Mapping[str, Any]:
            unknown = asked not in ("book", "hold", "cancel", "records")
            if asked == path or (unknown and not path):
                return answer(database, problem)
            return dict(right(asked, data, database, problem))

        return other

    return patched("answer", make)


def book(database: Any, problem: Problem) -> Mapping[str, Any]:
    database.execute("insert into bookings (room, first, last) values ('', '1', '1')")
    return {"records": []}


def forgetful() -> Break:
    """Return a backend that answers otherwise whenever an episode begins."""
    count = iter(range(1000))
    return answering("book", lambda database, problem: {"records": [f"Booked: {next(count)}"]})


def always(text: str) -> Any:
    return lambda problem: lambda page: text


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (lambda patch, gym: patch.setattr(gym, "name", "kalender"), "the class says 'kalender'"),
        (
            patched("pose", lambda gym, pose: lambda chance, level: pose(random.Random(), level)),
            "level 1 was another problem when it was posed again",
        ),
        (posing(lambda problem: replace(problem, shown={"days": (1, 2)})), "shows what JSON changes"),
        (posing(lambda problem: replace(problem, goal=" ")), "has no goal"),
        (
            posing(lambda problem: replace(problem, facts={"day": {1}})),
            "raised TypeError: Object of type set is not JSON serializable",
        ),
        (posing(lambda problem: replace(problem, rows={"rooms": [{"a": 1}]})), "making the database"),
        (specifying(allowed=(Pattern("insert", "booking"),)), "there is no table 'booking'"),
        (
            specifying(allowed=(Pattern("update", "bookings", columns=frozenset({"day"})),)),
            "there is no column 'day'",
        ),
        (specifying(required=(), ending="done"), "done() at once in task"),
        (answering("", lambda database, problem: {}), "a path that nobody knows is answered by"),
        (answering("", lambda database, problem: {}["day"]), "raised KeyError"),
        (
            answering("book", lambda database, problem: {}["day"]),
            "the expert in task 'train-calendar-1-calm-0' raised",
        ),
        (answering("records", lambda database, problem: {}), "records are answered by 200"),
        (answering("records", lambda database, problem: {"records": [1]}), "records are no texts"),
        (answering("records", book), "asking for them changes something"),
        (patched("expert", lambda gym, right: always("done()")), "the expert in task"),
        (patched("expert", lambda gym, right: always("noop(1)")), "comes to no end"),
        (
            patched("almost", lambda gym, right: lambda problem: {"twice": gym.expert(problem)}),
            "the run 'twice' in task",
        ),
        (patched("almost", lambda gym, right: lambda problem: {}), "there is none for task"),
        (
            patched("almost", lambda gym, right: lambda problem: {"idle": lambda page: "noop(1)"}),
            "the run 'idle' in task",
        ),
        (forgetful(), "went another way after"),
    ],
)
def test_a_gym_that_breaks_a_rule_is_told_so(
    broken: Break, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(playing, "ENDLESS", 8)
    broken(monkeypatch, load_gym("calendar"))
    with pytest.raises(RulesBroken) as caught:
        check_gym("calendar", tasks=1, levels=(1,), profiles=("calm",))
    assert complaint in str(caught.value)


def test_a_gym_that_is_not_installed_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no gym 'lendin'"):
        check_gym("lendin")
