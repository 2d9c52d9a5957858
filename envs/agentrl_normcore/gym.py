"""What a gym is: a folder with a page, a schema, tasks and their specification; and how gyms are found.

A gym is a plugin: a subclass of `Gym` that an entry point of the group `agentrl_normcore.gyms` names.
Beside its `__init__.py` lie `page.html` and `schema.sql`. The page is drawn by the script `gym.js` of this
package, which also brings the conditions of the episode upon it; a gym need not know of them.
"""

import inspect
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from agentrl.errors import PluginError, UsageError
from agentrl.options import suggestion

from .ledger import Row
from .looking import Policy
from .specification import Specification

GROUP = "agentrl_normcore.gyms"
LEVELS = (1, 2, 3)


class Refusal(Exception):
    """The backend does not do what the page asked for; nothing of it is kept.

    Args:
        text: what the page tells its user.
        status: of HTTP.
    """

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Problem:
    """One task of a gym.

    Attributes:
        goal: what the agent is asked to do.
        specification: what counts as having done it.
        shown: what the page is given to draw itself, JSON-safe; the agent sees what the page makes of it.
        facts: what the backend and the expert know beyond that; also what tells two problems apart.
        rows: of each table, before the episode.
    """

    goal: str
    specification: Specification
    shown: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    rows: Mapping[str, Sequence[Row]] = field(default_factory=dict)


class Gym(ABC):
    """A small web application to practise in.

    Attributes:
        name: as its entry point has it.
        moves: whether its page has something of class `moves`, which shifts may move away from the pointer.
    """

    name: ClassVar[str]
    moves: ClassVar[bool] = False

    @abstractmethod
    def pose(self, chance: Random, level: int) -> Problem:
        """Draw a problem of a level: 1 takes a few steps, 2 and 3 take more care and more steps."""

    @abstractmethod
    def answer(
        self, path: str, data: Mapping[str, Any], database: sqlite3.Connection, problem: Problem
    ) -> Mapping[str, Any]:
        """Return what the backend answers, JSON-safe; what it writes is kept unless it raises.

        The page shows `records` of an answer, texts, and `status`. It asks for the path "records" where an
        answer did not come.

        Raises:
            Refusal: it does not do it.
        """

    @abstractmethod
    def expert(self, problem: Problem) -> Policy:
        """Return how it is done, by one who looks at the page and knows the problem."""

    @abstractmethod
    def almost(self, problem: Problem) -> Mapping[str, Policy]:
        """Return how it is done almost right, by the name of the mistake. The verifier must see each."""

    @property
    def folder(self) -> Path:
        """Return where the page and the schema are."""
        return Path(inspect.getfile(type(self))).parent

    def page(self) -> str:
        """Return the page, HTML."""
        return _read(self.folder / "page.html")

    def schema(self) -> str:
        """Return the statements that make the tables."""
        return _read(self.folder / "schema.sql")


@cache
def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def gym_names() -> tuple[str, ...]:
    """Return the names of the gyms that are installed, sorted."""
    return tuple(sorted({each.name for each in entry_points(group=GROUP)}))


@cache
def load_gym(name: str) -> Gym:
    """Return the gym `name`.

    Raises:
        UsageError: there is none.
        PluginError: two distributions have one of that name, it cannot be imported, or it is not a gym.
    """
    found = [each for each in entry_points(group=GROUP) if each.name == name]
    if not found:
        raise UsageError(f"no gym {name!r}; {suggestion(name, gym_names(), what='there is')}")
    if len({each.value for each in found}) > 1:
        owners = " and ".join(sorted(each.dist.name if each.dist else "?" for each in found))
        raise PluginError(f"two gyms are called {name!r}: of {owners}; uninstall one of them")
    try:
        made = found[0].load()()
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        raise PluginError(f"the gym {name!r} ({found[0].value}) could not be made: {cause}") from error
    if not isinstance(made, Gym):
        raise PluginError(f"the gym {name!r} ({found[0].value}) is not a subclass of agentrl_normcore.Gym")
    return made
