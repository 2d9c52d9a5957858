"""What a task asks of the world: which changes must happen, which may, and how the episode must end.

Whatever is neither required nor allowed is forbidden. Each required pattern takes exactly one change, so
doing the right thing twice is wrong. A specification can be printed in words, for people.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .ledger import Change, Op

Ending = Literal["done", "ask_human", "report_infeasible"]
ENDINGS: tuple[Ending, ...] = ("done", "ask_human", "report_infeasible")
NOUNS = {"insert": "a new row", "update": "an update of a row", "delete": "the removal of a row"}


@dataclass(frozen=True, slots=True)
class Pattern:
    """Changes of one kind.

    Attributes:
        key: columns of the key and their values; those left out do not matter.
        values: columns and their values: of the new row, or of the row that was deleted.
        columns: of an update, all that may differ; None for any. With no column at all it is an update that
            writes what was there already.
    """

    op: Op
    table: str
    key: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    columns: frozenset[str] | None = None

    def matches(self, change: Change) -> bool:
        """Return whether `change` is of this kind."""
        if (change.op, change.table) != (self.op, self.table):
            return False
        if not (_agrees(self.key, change.key) and _agrees(self.values, change.row)):
            return False
        return self.op != "update" or self.columns is None or change.touched <= self.columns

    def in_words(self) -> str:
        """Return what it stands for."""
        text = f"{NOUNS[self.op]} in {self.table}"
        if self.key:
            text += f" (the one with {_listed(self.key)})"
        if self.values:
            text += f" with {_listed(self.values)}"
        if self.op == "update" and self.columns is not None:
            names = ", ".join(sorted(self.columns))
            text += f", nothing but {names} differing" if names else " that changes nothing"
        return text


@dataclass(frozen=True, slots=True)
class Verdict:
    """How what happened compares with what was specified."""

    passed: tuple[str, ...]
    missing: tuple[str, ...]
    forbidden: tuple[str, ...]

    @property
    def success(self) -> bool:
        """Return whether nothing is missing and nothing forbidden happened."""
        return not self.missing and not self.forbidden


@dataclass(frozen=True, slots=True)
class Specification:
    """What must happen, what may, and how the episode must end.

    Attributes:
        required: each takes exactly one change of its own.
        allowed: any number of changes each.
        ending: the action that must end the episode.
        mentions: what the question or the reason must contain, whatever the case.
    """

    required: tuple[Pattern, ...] = ()
    allowed: tuple[Pattern, ...] = ()
    ending: Ending = "done"
    mentions: tuple[str, ...] = ()

    def verify(self, changes: Sequence[Change], ending: str | None, said: str = "") -> Verdict:
        """Compare what happened; `ending` is the action that ended the episode, None if it was cut off."""
        stray = [number for number, change in enumerate(changes) if not self._allows(change)]
        taken = _assign(self.required, changes, stray)
        forbidden = [shown(changes[number]) for number in stray if number not in taken.values()]
        met = [pattern.in_words() for number, pattern in enumerate(self.required) if number in taken]
        missing = [pattern.in_words() for number, pattern in enumerate(self.required) if number not in taken]
        if ending is not None and ending != self.ending:
            forbidden.append(f"the end {ending}()")
        (met if self._ends(ending, said) else missing).append(self._end_in_words())
        return Verdict(tuple(met), tuple(missing), tuple(forbidden))

    def _allows(self, change: Change) -> bool:
        return any(pattern.matches(change) for pattern in self.allowed)

    def _ends(self, ending: str | None, said: str) -> bool:
        text = said.casefold()
        return ending == self.ending and all(each.casefold() in text for each in self.mentions)

    def _end_in_words(self) -> str:
        about = f" about {', '.join(map(repr, self.mentions))}" if self.mentions else ""
        return f"the end {self.ending}(){about}"

    def in_words(self) -> str:
        """Return the specification as a person would read it, a line for each part."""
        lines = [f"Required, exactly once: {each.in_words()}." for each in self.required]
        lines += [f"Allowed, any number of times: {each.in_words()}." for each in self.allowed]
        rest = "Every other change" if lines else "Every change"
        return "\n".join([*lines, f"{rest} is forbidden.", f"Required: {self._end_in_words()}."])


def shown(change: Change) -> str:
    """Return a change as a verdict names it."""
    if change.op == "update":
        columns = ", ".join(
            f"{name} from {(change.old or {})[name]!r} to {change.row[name]!r}"
            for name in sorted(change.touched)
        )
        return f"update of {change.table} ({_listed(change.key)}): {columns or 'nothing differed'}"
    return f"{change.op} in {change.table}: {_listed(change.row)}"


def _assign(patterns: Sequence[Pattern], changes: Sequence[Change], stray: Collection[int]) -> dict[int, int]:
    """Return which pattern takes which change: as many patterns and `stray` changes as possible, none twice.

    Taking the first that fits would leave a pattern unmet where a wider one took its only change. First every
    stray change looks for a pattern, then every pattern left looks for a change; what is matched stays
    matched, so both are as many as they could be alone (Mendelsohn and Dulmage 1958).
    """
    fits = {
        (pattern, change)
        for pattern, each in enumerate(patterns)
        for change, other in enumerate(changes)
        if each.matches(other)
    }
    change_of: dict[int, int] = {}
    _match(stray, range(len(patterns)), {(change, pattern) for pattern, change in fits}, change_of)
    pattern_of = {change: pattern for pattern, change in change_of.items()}
    free = [pattern for pattern in range(len(patterns)) if pattern not in change_of]
    _match(free, range(len(changes)), fits, pattern_of)
    return {pattern: change for change, pattern in pattern_of.items()}


def _match(
    seekers: Iterable[int], seats: Sequence[int], fits: Collection[tuple[int, int]], holder: dict[int, int]
) -> None:
    """Seat as many seekers as possible beside those in `holder`, by augmenting paths (Kuhn 1955)."""

    def seat(seeker: int, tried: set[int]) -> bool:
        for each in seats:
            if each in tried or (seeker, each) not in fits:
                continue
            tried.add(each)
            if each not in holder or seat(holder[each], tried):
                holder[each] = seeker
                return True
        return False

    for seeker in seekers:
        seat(seeker, set())


def _agrees(wanted: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    return all(name in row and row[name] == value for name, value in wanted.items())


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value!r}" for name, value in values.items())
