"""The options of `agentrl env setup` that an env declares itself: those of its steps."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agentrl.errors import UsageError
from agentrl.options import nearest

if TYPE_CHECKING:
    from agentrl.hosting.elsewhere import SetupStep, Site


def read_options(site: "Site", arguments: Sequence[str]) -> dict[str, str]:
    """Return the options among `arguments` with their values; "" where an option takes none.

    The value may be the next argument or stand behind `=`. A path is made absolute.

    Raises:
        UsageError: the env has no such option, or a value is missing or too many.
    """
    found: dict[str, str] = {}
    left = list(arguments)
    while left:
        option, equals, value = left.pop(0).partition("=")
        step = site.options.get(option)
        if step is None:
            raise UsageError(_unknown(site, option))
        if step.value and not equals:
            value = left.pop(0) if left else ""
        if bool(value) != bool(step.value):
            raise UsageError(f"{option} of the env {site.name!r} takes {step.value or 'no value'}")
        found[option] = _absolute(value)
    return found


def describe_option(step: "SetupStep") -> str:
    """Return an option as it is written, and what it is good for."""
    return f"{' '.join(filter(None, (step.option, step.value)))}: {step.help or step.title}"


def _unknown(site: "Site", option: str) -> str:
    close = nearest(option, site.options)
    if close:
        return f"the set-up of the env {site.name!r} has no {option!r}; did you mean {close!r}?"
    known = "; ".join(map(describe_option, site.options.values())) or "none"
    return f"the set-up of the env {site.name!r} has no {option!r}; besides --force it has {known}"


def _absolute(value: str) -> str:
    path = Path(value).expanduser()
    return str(path.absolute()) if value and path.exists() else value
