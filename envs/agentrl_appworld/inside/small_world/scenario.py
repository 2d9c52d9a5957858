"""A kind of task: how to furnish the databases, what to ask for, how to solve it, and how not quite."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar

from .accounts import key_of, open_account
from .words import Person, strangers

# Stands for any value where a change may write what is not known before.
ANYTHING = "*"


@dataclass(frozen=True)
class Change:
    """How one table must differ at the end; rows name only the fields that matter.

    `updated` goes by the row's id and names every field that may differ; the values are the new ones.
    """

    added: Sequence[Mapping[str, Any]] = ()
    updated: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    removed: Sequence[int] = ()


@dataclass(frozen=True)
class Problem:
    """One task that has been set up.

    `values` fill the wording. `steps` solve it, each a block of code for one turn; they do not complete the
    task. `changes` are by "app.Model"; nothing else may change. `answer_code` is the expression that yields
    `answer`, "" where none is asked for. `wrong` does the right thing to the wrong object (or finds the wrong
    answer), `twice` does it once too often; both are whole programs but for the completion.
    """

    values: Mapping[str, Any]
    steps: Sequence[str]
    wrong: str
    twice: str
    changes: Mapping[str, Change] = field(default_factory=dict)
    answer: Any = None
    answer_code: str = ""

    def solution(self) -> list[str]:
        """Return the code of an expert, one block a turn; the last one completes the task."""
        return [*self.steps[:-1], join(self.steps[-1], completion(self.answer_code))]

    def near_misses(self) -> dict[str, str]:
        """Return programs that all but solve the task, by what is wrong with them. All must fail."""
        end = completion(self.answer_code)
        return {
            "wrong": join(self.wrong, end),
            "twice": join(self.twice, end),
            "stray": join(*self.steps, STRAY, end),
            "not_completed": join(*self.steps),
        }


class Place:
    """The databases of one task while they are furnished, and who and what there is in its split."""

    def __init__(
        self, models: Any, me: Person, others: Sequence[Person], things: Sequence[str], chance: Random
    ) -> None:
        """Take AppWorld's model collection, and what to choose from. `me` is who asks."""
        self.models = models
        self.me = me
        self.chance = chance
        self.others = chance.sample(list(others), len(others))
        self.things = chance.sample(list(things), 40)

    def add(self, model: str, **fields: Any) -> Any:
        """Save a new row of "app.Model" and return it."""
        app, name = model.split(".")
        row = self.models[app][name](**fields)
        row.save()
        return row

    def user(self, app: str, person: Person | None = None) -> Any:
        """Return somebody's account in an app, mine by default."""
        who = person or self.me
        key = key_of(app)
        return self.models[app].User.find_one(**{key: getattr(who, key)})

    def strangers(self, app: str) -> tuple[Person, Person]:
        """Return two people who have an account in this app only, and in this task only."""
        known = (self.me, *self.others)
        found = strangers(self.chance, known)
        for person in found:
            open_account(self.models, person, app)
        return found


class Scenario(ABC):
    """A kind of task. Names and values vary, and the wording does; what has to be done does not."""

    name: ClassVar[str]
    apps: ClassVar[tuple[str, ...]]
    difficulty: ClassVar[int]
    wordings: ClassVar[tuple[str, ...]]

    @abstractmethod
    def pose(self, place: Place) -> Problem:
        """Furnish the databases and return what is asked for."""


def login(*apps: str) -> str:
    """Return the code that logs in to apps; the token of an app is then called `<app>_token`."""
    lines = [
        'passwords = {a["account_name"]: a["password"] for a in apis.supervisor.show_account_passwords()}',
        "me = apis.supervisor.show_profile()",
    ]
    for app in apps:
        key = key_of(app)
        arguments = f'username=me["{key}"], password=passwords["{app}"]'
        lines.append(f'{app}_token = apis.{app}.login({arguments})["access_token"]')
    return "\n".join(lines)


def completion(answer_code: str) -> str:
    """Return the call that ends a task."""
    return f"apis.supervisor.complete_task(answer={answer_code})" if answer_code else COMPLETE


def join(*blocks: str) -> str:
    """Return blocks of code as one."""
    return "\n".join(block for block in blocks if block)


COMPLETE = "apis.supervisor.complete_task()"
STRAY = join(
    login("simple_note"),
    'apis.simple_note.create_note(title="stray", content="nobody asked", access_token=simple_note_token)',
)
