"""The rules of curricula."""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agentrl.interfaces import Curriculum
from agentrl.testing.rules import Report, RuleBroken, judge_by, name_of, no_exception
from agentrl.testing.samples import make_trajectory
from agentrl.types import Group, Task

TASKS = [Task(f"task {number}", data={"number": number}, difficulty=number % 3) for number in range(7)]


def check_curriculum(make: Callable[[], Curriculum], report: Report | None = None) -> None:
    """Hold a curriculum to the rules of its kind.

    Args:
        make: the class, or a function that returns an instance with the options to test.
        report: told of each rule, as soon as it was tried.

    Raises:
        RulesBroken: with all rules that it breaks.
    """
    __tracebackhide__ = True
    judge_by(RULES, CurriculumUnderTest(make), name_of(make), report)


@dataclass(frozen=True, slots=True)
class CurriculumUnderTest:
    """Makes curricula and asks them."""

    make: Callable[[], Curriculum]

    def started(self, tasks: list[Task] = TASKS, seed: int = 5) -> Curriculum:
        """Return a curriculum that has taken `tasks`."""
        with no_exception("start", "let start take any list of tasks that is not empty"):
            curriculum = self.make()
            curriculum.start(tasks, seed)
        return curriculum

    def choose(self, curriculum: Curriculum, count: int) -> list[Task]:
        """Return chosen tasks, which must be so many of those there are."""
        with no_exception(f"choose({count})", "choose any number of tasks, with repetition if need be"):
            chosen: Any = curriculum.choose(count)
        if not isinstance(chosen, list) or len(chosen) != count:
            found = f"choose({count}) returned {len(chosen) if isinstance(chosen, list) else chosen!r}"
            raise RuleBroken(
                "chooses as many as asked", found, "return a list of so many tasks, repeating some"
            )
        strange = [task for task in chosen if task not in TASKS]
        if strange:
            found = f"choose({count}) returned {strange[0]!r}, which start was not given"
            raise RuleBroken(
                "chooses from what there is", found, "choose from the tasks that start was given"
            )
        return chosen

    def sizes(self, curriculum: Curriculum, chosen: list[Task], group_size: int) -> list[int]:
        """Return the sizes of the groups of chosen tasks, which must be one each and within the budget."""
        with no_exception("sizes", "give every chosen task a number of trajectories"):
            sizes: Any = curriculum.sizes(chosen, group_size)
        budget = len(chosen) * group_size
        whole = isinstance(sizes, list) and all(type(size) is int and size > 0 for size in sizes)
        if not whole or len(sizes) != len(chosen) or sum(sizes) > budget:
            raise RuleBroken(
                "shares out what there is",
                f"sizes gave {sizes!r} for {len(chosen)} tasks with {group_size} trajectories each",
                f"return one whole number of at least 1 a task, {budget} in all at most",
            )
        return list(sizes)

    def learn(self, curriculum: Curriculum, chosen: list[Task], turn: int) -> None:
        """Tell how the chosen tasks went: well, badly, or not at all."""
        groups = [_group(task, (turn + place) % 4) for place, task in enumerate(chosen)]
        before = copy.deepcopy(groups)
        with no_exception("learn", "learn from every group: solved, failed, broken and empty ones"):
            curriculum.learn(groups)
        if groups != before:
            raise RuleBroken("leaves groups alone", "learn changed the groups", "copy what you change")


def _group(task: Task, kind: int) -> Group:
    broken = make_trajectory(success=False, stop="error")
    broken.outcome, broken.error = None, "the env crashed"
    trajectories = [
        [make_trajectory(reward=1.0), make_trajectory(success=False, reward=0.0)],
        [make_trajectory(success=False, reward=0.0)] * 2,
        [broken],
        [],
    ]
    return Group(task, trajectories[kind])


def chooses_tasks(subject: CurriculumUnderTest) -> None:
    """As many tasks come as are asked for, also more than there are, also from a single one."""
    curriculum = subject.started()
    for turn, count in enumerate((1, 3, len(TASKS), 2 * len(TASKS) + 1)):
        subject.learn(curriculum, subject.choose(curriculum, count), turn)
    subject.choose(subject.started(TASKS[:1]), 3)


def shares_out(subject: CurriculumUnderTest) -> None:
    """Every chosen task gets trajectories, together no more than usual, whatever is known of the tasks."""
    curriculum = subject.started()
    for turn, (count, group_size) in enumerate(((3, 8), (1, 1), (2 * len(TASKS), 2), (4, 5))):
        chosen = subject.choose(curriculum, count)
        subject.sizes(curriculum, chosen, group_size)
        subject.learn(curriculum, chosen, turn)


def repeats_itself(subject: CurriculumUnderTest) -> None:
    """The same seed makes the same choices."""
    if _course(subject, subject.started(), 4) != _course(subject, subject.started(), 4):
        raise RuleBroken(
            "repeats itself",
            "the same seed led to other choices",
            "draw all randomness from the seed that start gets",
        )


def goes_on_exactly(subject: CurriculumUnderTest) -> None:
    """After restore, choices go on as if the run had never stopped; the state is JSON-safe."""
    for turns in range(4):
        curriculum = subject.started()
        _course(subject, curriculum, turns)
        with no_exception("state", "return all that restore needs, as JSON"):
            state = json.loads(json.dumps(curriculum.state(), allow_nan=False))
        resumed = subject.started()
        with no_exception("restore", "take what state returned, after a trip through JSON"):
            resumed.restore(state)
        if _course(subject, curriculum, 4) != _course(subject, resumed, 4):
            raise RuleBroken(
                "goes on exactly",
                f"after {turns} updates, a curriculum that was restored chose other tasks or sizes",
                "put everything that choices depend on into state, random generators included",
            )


def _course(subject: CurriculumUnderTest, curriculum: Curriculum, turns: int) -> list[list[str]]:
    """Return the ids of the tasks chosen in some updates, with the sizes of their groups."""
    course = []
    for turn in range(turns):
        chosen = subject.choose(curriculum, 3)
        sizes = subject.sizes(curriculum, chosen, 4)
        subject.learn(curriculum, chosen, turn)
        course.append([f"{task.id}, {size} times" for task, size in zip(chosen, sizes, strict=True)])
    return course


RULES = (chooses_tasks, shares_out, repeats_itself, goes_on_exactly)
