"""Days in words, and the forms in which fields take them."""

import calendar
from datetime import date

FORMATS = {"DD.MM.YYYY": "%d.%m.%Y", "MM/DD/YYYY": "%m/%d/%Y", "YYYY-MM-DD": "%Y-%m-%d"}


def in_words(day: str) -> str:
    """Return a day of the form 2026-03-14 as `14 March 2026`."""
    found = date.fromisoformat(day)
    return f"{found.day} {calendar.month_name[found.month]} {found.year}"


def with_weekday(day: str) -> str:
    """Return it as `Saturday 14 March 2026`."""
    return f"{calendar.day_name[date.fromisoformat(day).weekday()]} {in_words(day)}"


def span(first: str, last: str) -> str:
    """Return two days in words, one if they are the same."""
    return in_words(first) if first == last else f"{in_words(first)} to {in_words(last)}"


def month_of(text: str) -> tuple[int, int] | None:
    """Return year and month of a text such as `March 2026`, None if it is none."""
    name, _, year = text.partition(" ")
    names = list(calendar.month_name)
    return (int(year), names.index(name)) if name in names[1:] and year.isdigit() else None
