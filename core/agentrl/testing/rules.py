"""What a rule is, and how a plugin is held to many of them.

A rule is a function, perhaps async, that does something with a plugin and raises `RuleBroken` if the plugin
does not do its part, or `RuleSkipped` if it cannot be tried. All rules are tried, so that one run shows
everything there is to mend.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

SubjectT = TypeVar("SubjectT")
T = TypeVar("T")


class RuleBroken(AssertionError):
    """One rule is broken."""

    def __init__(self, rule: str, found: str, remedy: str) -> None:
        """Take the rule, what was seen instead, and what its author is to do."""
        super().__init__(f"{rule}: {found}; {remedy}")
        self.rule = rule
        self.found = found
        self.remedy = remedy


class RuleSkipped(Exception):
    """A rule cannot be tried on this plugin; the text says why."""


class RulesBroken(AssertionError):
    """A plugin breaks the rules of its kind."""

    def __init__(self, plugin: str, broken: Sequence[RuleBroken]) -> None:
        """Take the plugin's name and the rules it breaks."""
        lines = [f"  - {rule}" for rule in broken]
        super().__init__("\n".join([f"{plugin} breaks {len(broken)} of the rules of its kind:", *lines]))
        self.broken = tuple(broken)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one rule was kept: as it should be, unless it is `broken`, or `skipped` for a reason."""

    rule: str
    broken: RuleBroken | None = None
    skipped: str | None = None


Rule: TypeAlias = Callable[[SubjectT], Coroutine[Any, Any, None] | None]
# Is told of each rule, as soon as it was tried.
Report: TypeAlias = Callable[[Verdict], None]


def judge_by(
    rules: Sequence[Rule[SubjectT]],
    subject: SubjectT,
    plugin: str,
    report: Report | None = None,
    finish: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> None:
    """Try all rules, in one event loop.

    Args:
        rules: to try, in this order.
        subject: what they look at.
        plugin: how to call it.
        report: told of each rule, as soon as it was tried.
        finish: lets go of what the rules have shared, in the same event loop.

    Raises:
        RulesBroken: at least one is broken.
    """
    __tracebackhide__ = True
    broken: dict[str, RuleBroken] = {}
    with asyncio.Runner() as runner:
        try:
            for rule in rules:
                verdict = _try(rule, subject, runner)
                if report is not None:
                    report(verdict)
                if verdict.broken is not None:
                    broken.setdefault(str(verdict.broken), verdict.broken)
        finally:
            if finish is not None:
                runner.run(finish())
    if broken:
        # What the plugin itself has raised is worth a traceback; the kit is not.
        causes = [error.__cause__ for error in broken.values() if error.__cause__]
        raise RulesBroken(plugin, list(broken.values())) from (causes[0] if causes else None)


def _try(rule: Rule[SubjectT], subject: SubjectT, runner: asyncio.Runner) -> Verdict:
    name = rule.__name__.replace("_", " ")
    try:
        pending = rule(subject)
        if pending is not None:
            runner.run(pending)
    except RuleSkipped as reason:
        return Verdict(name, skipped=str(reason))
    except RuleBroken as error:
        return Verdict(name, error)
    except Exception as error:  # no rule has foreseen what this plugin does
        found = f"{rule.__name__} could not be looked at: {type(error).__name__}: {error}"
        broken = RuleBroken("is of its kind", found, "compare your signatures with the base class")
        broken.__cause__ = error
        return Verdict(name, broken)
    return Verdict(name)


def left_out(rule: str, reason: str) -> Rule[object]:
    """Return a rule that stands for one that is not tried."""

    def skip(subject: object) -> None:
        raise RuleSkipped(reason)

    skip.__name__ = rule
    return skip


@contextmanager
def no_exception(what: str, remedy: str) -> Iterator[None]:
    """Hold the block to the rule that it raises nothing."""
    try:
        yield
    except (RuleBroken, RuleSkipped):
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
    made = getattr(make, "func", make)  # of a functools.partial
    return str(getattr(made, "__qualname__", type(made).__name__))
