"""Holds gyms to the rules of their kind, in a real browser.

In your own test, where your distribution is installed:

    from agentrl_normcore.testing import check_gym

    def test_my_gym_keeps_the_rules() -> None:
        check_gym("my_gym")

All rules are tried, so that one run shows everything there is to mend.
"""

import json
import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from agentrl import Task
from agentrl.testing.rules import RuleBroken, judge_by, no_exception
from agentrl_browser import Request, find_executable

from .backend import API, Backend
from .conditions import PROFILES, Conditions
from .gym import LEVELS, Gym, Problem, load_gym
from .ledger import Ledger
from .looking import expert
from .playing import Episode, Run, expert_run, play_all, replay
from .specification import Pattern
from .workload import LENGTHS, Plan, problem_of, task_at

__all__ = ["GymUnderTest", "check_gym"]
# Problems of each level and split that are looked at without being played.
LOOKED_AT = 10


def check_gym(
    name: str,
    tasks: int = 2,
    levels: Sequence[int] = LEVELS,
    profiles: Sequence[str] = tuple(PROFILES),
    side_by_side: int = 4,
) -> None:
    """Hold an installed gym to the rules of its kind.

    Args:
        name: of the entry point.
        tasks: of each level that are played, by the expert under every profile.
        levels: to look at.
        profiles: conditions to play under.
        side_by_side: how many episodes are played at a time.

    Raises:
        RulesBroken: with all rules that it breaks.
        UsageError: there is no such gym, or no browser.
    """
    __tracebackhide__ = True
    find_executable()
    load_gym(name)
    judge_by(RULES, GymUnderTest(name, tasks, tuple(levels), tuple(profiles), side_by_side), name)


@dataclass(frozen=True, slots=True)
class GymUnderTest:
    """Which gym is looked at, and how thoroughly; see `check_gym`."""

    name: str
    count: int = 2
    levels: tuple[int, ...] = LEVELS
    profiles: tuple[str, ...] = tuple(PROFILES)
    side_by_side: int = 4

    @property
    def gym(self) -> Gym:
        """Return the gym."""
        return load_gym(self.name)

    def tasks(self, profile: str = "calm") -> list[Task]:
        """Return the tasks to play."""
        return self._some("train", profile, self.count)

    def problems(self) -> Iterator[tuple[Task, Problem]]:
        """Yield tasks of all splits, with their problems."""
        for split in LENGTHS:
            for task in self._some(split, "calm", LOOKED_AT):
                remedy = "let pose draw from many problems of every level, with facts that JSON can carry"
                with no_exception(f"posing task {task.id!r}", remedy):
                    problem = problem_of(task.data)
                yield task, problem

    def _some(self, split: str, profile: str, count: int) -> list[Task]:
        plan = Plan(0, (self.name,), self.levels, (profile,))
        return [task_at(split, index, plan) for index in range(count * len(plan.kinds))]

    async def play(self, runs: Sequence[Run], side_by_side: int | None = None) -> list[Episode]:
        """Play runs; return the episodes in their order."""
        return await play_all(runs, side_by_side or self.side_by_side)


def has_its_name(subject: GymUnderTest) -> None:
    """The gym is called what the entry point is called."""
    if subject.gym.name != subject.name:
        found = f"the entry point is {subject.name!r}, the class says {subject.gym.name!r}"
        raise RuleBroken("has one name", found, "let both be the same")


def poses_the_same_problems_again(subject: GymUnderTest) -> None:
    """A problem follows from the random numbers that `pose` is given."""
    for level in subject.levels:
        for seed in range(LOOKED_AT):
            with no_exception(f"pose at level {level}", "let pose draw a problem of every level"):
                one, other = (subject.gym.pose(random.Random(seed), level) for _ in range(2))
            if one != other:
                found = f"level {level} was another problem when it was posed again"
                raise RuleBroken("repeats itself", found, "draw everything from the `chance` that pose gets")


def poses_what_json_can_carry(subject: GymUnderTest) -> None:
    """There is a goal, and `shown` reaches the page as it is."""
    for task, problem in subject.problems():
        with no_exception(f"writing task {task.id!r} as JSON", "use texts, numbers, lists and mappings"):
            same = json.loads(json.dumps(dict(problem.shown), allow_nan=False)) == problem.shown
        if not same or not problem.goal.strip():
            found = f"task {task.id!r} has no goal, or shows what JSON changes: {problem.shown}"
            raise RuleBroken("poses what JSON can carry", found, "give a goal, and lists instead of tuples")


def specifies_what_there_is(subject: GymUnderTest) -> None:
    """Tables and columns of specifications are in the schema, whose changes can be logged."""
    for task, problem in subject.problems():
        with no_exception(
            f"making the database of task {task.id!r}", "mend schema.sql, or the problem's rows"
        ):
            ledger = Ledger(subject.gym.schema(), problem.rows)
        for pattern in (*problem.specification.required, *problem.specification.allowed):
            if unknown := _unknown(pattern, ledger):
                found = f"task {task.id!r} asks for {pattern.in_words()}, but there is no {unknown}"
                raise RuleBroken("specifies what there is", found, "name tables and columns of schema.sql")
        ledger.close()


def _unknown(pattern: Pattern, ledger: Ledger) -> str:
    """Return what of a pattern the database does not have, "" if it has all."""
    try:
        found = ledger.database.execute(f'select * from "{pattern.table}" limit 0')
    except sqlite3.OperationalError:
        return f"table {pattern.table!r}"
    columns = {each[0] for each in found.description} | {"rowid"}
    named = [*pattern.key, *pattern.values, *(pattern.columns or ())]
    return next((f"column {name!r}" for name in named if name not in columns), "")


def answers_pages(subject: GymUnderTest) -> None:
    """The backend tells its records without a change, and refuses what it does not know."""
    for task, problem in subject.problems():
        backend = Backend(subject.gym, problem, Conditions())
        remedy = (
            'answer "records" with {"records": [...]}, which Refresh asks for, and raise Refusal for others'
        )
        with no_exception(f"answering the page of task {task.id!r}", remedy):
            told = backend.answer(Request("GET", f"{API}records"))
            records = json.loads(told.body).get("records")
            refused = backend.answer(Request("POST", f"{API}no-such-page", body=b"{}"))
        found = ""
        if told.status != 200 or not isinstance(records, list):
            found = f"records are answered by {told.status} {told.body!r}"
        elif not all(isinstance(each, str) for each in records) or backend.ledger.changes():
            found = "records are no texts, or asking for them changes something"
        elif refused.status < 400:
            found = f"a path that nobody knows is answered by {refused.body!r}"
        backend.close()
        if found:
            raise RuleBroken("answers pages", f"task {task.id!r}: {found}", remedy)


async def solves_what_it_poses(subject: GymUnderTest) -> None:
    """The expert succeeds under every profile."""
    tasks = [task for profile in subject.profiles for task in subject.tasks(profile)]
    for episode in await subject.play([expert_run(task, seed) for seed, task in enumerate(tasks)]):
        if not episode.outcome.success:
            seen = episode.observations[-1]
            said = f"{', '.join(episode.outcome.failed)}; at last the page was:\n{seen.text}\n"
            raise RuleBroken(
                "solves what it poses",
                f"{episode} fails: {said}" if seen.done else f"{episode} comes to no end: {said}",
                "let the expert look at the page in every turn, and do again what was not done",
            )


async def sees_what_is_almost_right(subject: GymUnderTest) -> None:
    """Runs that are almost right come to their end, and are judged as failures that say why."""
    runs = [run for task in subject.tasks() for run in _almost_right(subject.gym, task)]
    for episode in await subject.play(runs):
        rule, remedy = "sees what is almost right", "specify what tells it from the right run"
        if episode.outcome.success:
            raise RuleBroken(rule, f"{episode} is judged a success", remedy)
        if not episode.observations[-1].done:
            raise RuleBroken(rule, f"{episode} comes to no end", "let the run say done() when it is through")


def _almost_right(gym: Gym, task: Task) -> list[Run]:
    with no_exception(f"almost of task {task.id!r}", "return policies by the name of the mistake"):
        policies = gym.almost(problem_of(task.data))
    if not policies:
        found = f"there is none for task {task.id!r}"
        raise RuleBroken("sees what is almost right", found, "let almost return at least one run for each")
    return [Run(task, expert(policy), f"the run {name!r}") for name, policy in policies.items()]


async def gives_nothing_for_nothing(subject: GymUnderTest) -> None:
    """Who does nothing has not succeeded, whether the episode is cut off or said to be done."""
    deeds: dict[str, Callable[[object], str | None]] = {
        "nothing at all": lambda _: None,
        "done() at once": lambda _: "done()",
    }
    runs = [Run(task, act, name) for task in subject.tasks() for name, act in deeds.items()]
    for episode in await subject.play(runs):
        if episode.outcome.success:
            found, remedy = f"{episode} is judged a success", "require a change, or another end than done()"
            raise RuleBroken("gives nothing for nothing", found, remedy)


async def repeats_itself(subject: GymUnderTest) -> None:
    """The same actions make the same episode to the byte, alone and beside others."""
    tasks = subject.tasks(subject.profiles[-1])[: len(subject.levels)]
    first = await subject.play([expert_run(task, seed) for seed, task in enumerate(tasks)])
    alone = await subject.play([replay(episode) for episode in first], side_by_side=1)
    beside = await subject.play([replay(episode) for episode in [*first, *first]])
    for one, other in zip([*first] * 3, [*alone, *beside], strict=True):
        if one != other:
            places = zip(one.observations, other.observations, strict=False)
            place = next((place for place, (a, b) in enumerate(places) if a != b), -1)
            found = f"{one} went another way after {place} actions when it was played again"
            remedy = "use timers, not frames, in the page; call show(draw, hidden) with what it remembers"
            raise RuleBroken("repeats itself", found, remedy)


RULES = (
    has_its_name,
    poses_the_same_problems_again,
    poses_what_json_can_carry,
    specifies_what_there_is,
    answers_pages,
    solves_what_it_poses,
    sees_what_is_almost_right,
    gives_nothing_for_nothing,
    repeats_itself,
)
