"""What a rule is, and how a plugin is held to many of them.

A rule is a function, perhaps async, that does something with a plugin and raises `RuleBroken` if the plugin
does not do its part. All rules are tried, so that one run shows everything there is to mend.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar

SubjectT = TypeVar("SubjectT")
T = TypeVar("T")


class RuleBroken(AssertionError):
    """One rule is broken."""

    def __init__(self, rule: str, found: str, remedy: str) -> None:
        """Take the rule, what was seen instead, and what its author is to do."""
        super().__init__(f"{rule}: {found}; {remedy}")
        self.rule = rule


class RulesBroken(AssertionError):
    """A plugin breaks the rules of its kind."""

    def __init__(self, plugin: str, broken: Sequence[RuleBroken]) -> None:
        """Take the plugin's name and the rules it breaks."""
        lines = [f"  - {rule}" for rule in broken]
        super().__init__("\n".join([f"{plugin} breaks {len(broken)} of the rules of its kind:", *lines]))
        self.broken = tuple(broken)


Rule: TypeAlias = Callable[[SubjectT], Coroutine[Any, Any, None] | None]


def judge_by(rules: Sequence[Rule[SubjectT]], subject: SubjectT, plugin: str) -> None:
    """Try all rules.

    Raises:
        RulesBroken: at least one is broken.
    """
    __tracebackhide__ = True
    broken: dict[str, RuleBroken] = {}
    for rule in rules:
        try:
            pending = rule(subject)
            if pending is not None:
                asyncio.run(pending)
        except RuleBroken as error:
            broken.setdefault(str(error), error)
        except Exception as error:  # no rule has foreseen what this plugin does
            found = f"{rule.__name__} could not be looked at: {type(error).__name__}: {error}"
            broken[found] = RuleBroken("is of its kind", found, "compare your signatures with the base class")
            broken[found].__cause__ = error
    if broken:
        # What the plugin itself has raised is worth a traceback; the kit is not.
        causes = [error.__cause__ for error in broken.values() if error.__cause__]
        raise RulesBroken(plugin, list(broken.values())) from (causes[0] if causes else None)


@contextmanager
def no_exception(what: str, remedy: str) -> Iterator[None]:
    """Hold the block to the rule that it raises nothing."""
    try:
        yield
    except (RuleBroken, KeyboardInterrupt):
        raise
    except Exception as error:
        raise RuleBroken(
            "raises nothing", f"{what} raised {type(error).__name__}: {error}", remedy
        ) from error


async def in_time(awaitable: Awaitable[T], seconds: float, what: str) -> T:
    """Return what is awaited, holding it to the rule that it answers in time."""
    try:
        async with asyncio.timeout(seconds) as clock:
            return await awaitable
    except TimeoutError as error:
        if not clock.expired():
            raise
        remedy = "give your own waits a limit, or allow more by the check's argument `seconds`"
        raise RuleBroken("answers in time", f"{what} took longer than {seconds:g} s", remedy) from error


def name_of(make: Callable[[], object]) -> str:
    """Return how to call the plugin that `make` makes, in messages."""
    return str(getattr(make, "__qualname__", type(make).__name__))
