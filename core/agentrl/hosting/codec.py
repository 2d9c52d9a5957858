"""The values that cross the pipe, as plain JSON, and what an env may and may not return.

The `check_*` functions hold for envs in this process too: a wrong type is told from a right one in one place.
"""

import math
from collections.abc import Mapping
from typing import Any

from agentrl.errors import AgentRLError
from agentrl.types import Action, Observation, Outcome, Task

Json = dict[str, Any]
_OBSERVATION = ("text", "done", "state_key", "action_key")
# The texts of an outcome, which are tuples here and lists in JSON.
_TEXTS = ("references", "passed", "failed", "tags")


class Nonsense(AgentRLError):
    """An env returned something that no env may return."""


def check_observation(value: object, origin: str) -> Observation:
    """Return `value` if it is a well-formed observation.

    `origin` says where it came from, for example "step of env 'browser'".

    Raises:
        Nonsense: it is not; the message says what came and what was expected.
    """
    if not isinstance(value, Observation):
        raise Nonsense(f"{origin} returned {describe(value)}, not an Observation")
    _expect(value.text, str, "Observation.text", origin)
    _expect(value.done, bool, "Observation.done", origin)
    _expect_optional_text(value.state_key, "Observation.state_key", origin)
    _expect_optional_text(value.action_key, "Observation.action_key", origin)
    return value


def check_outcome(value: object, origin: str) -> Outcome:
    """Return `value` if it is a well-formed outcome.

    Raises:
        Nonsense: it is not.
    """
    if not isinstance(value, Outcome):
        raise Nonsense(f"{origin} returned {describe(value)}, not an Outcome")
    _expect(value.success, bool, "Outcome.success", origin)
    _expect_optional_text(value.answer, "Outcome.answer", origin)
    for name in _TEXTS:
        _expect_texts(getattr(value, name), f"Outcome.{name}", origin)
    _expect_numbers(value.metrics, "Outcome.metrics", origin)
    return value


def check_action(value: object, origin: str) -> Action:
    """Return `value` if it is a well-formed action.

    Raises:
        Nonsense: it is not.
    """
    if not isinstance(value, Action):
        raise Nonsense(f"{origin} returned {describe(value)}, not an Action")
    _expect(value.text, str, "Action.text", origin)
    _expect_optional_text(value.key, "Action.key", origin)
    return value


def task_to_json(task: Task) -> Json:
    """Return a task as JSON."""
    return {
        "id": task.id,
        "split": task.split,
        "data": dict(task.data),
        "scenario": task.scenario,
        "difficulty": task.difficulty,
        "labels": dict(task.labels),
    }


def task_from_json(json: Json) -> Task:
    """Return the task in `json`."""
    return Task(**json)


def action_to_json(action: Action) -> Json:
    """Return an action as JSON."""
    return {"text": action.text, "key": action.key}


def action_from_json(json: Json) -> Action:
    """Return the action in `json`."""
    return Action(json["text"], json["key"])


def observation_to_json(observation: Observation) -> Json:
    """Return a checked observation as JSON."""
    return {name: getattr(observation, name) for name in _OBSERVATION}


def observation_from_json(json: object, origin: str) -> Observation:
    """Return the observation in `json`.

    Raises:
        Nonsense: there is none.
    """
    fields = _fields(json, _OBSERVATION, origin)
    return check_observation(Observation(**fields), origin)


def outcome_to_json(outcome: Outcome) -> Json:
    """Return a checked outcome as JSON."""
    return {
        "success": outcome.success,
        "answer": outcome.answer,
        **{name: list(getattr(outcome, name)) for name in _TEXTS},
        "metrics": {name: float(value) for name, value in outcome.metrics.items()},
    }


def outcome_from_json(json: object, origin: str) -> Outcome:
    """Return the outcome in `json`.

    Raises:
        Nonsense: there is none.
    """
    fields = _fields(json, ("success", "answer", *_TEXTS, "metrics"), origin)
    for name in _TEXTS:
        _expect_texts(fields[name], f"Outcome.{name}", origin)
        fields[name] = tuple(fields[name])
    return check_outcome(Outcome(**fields), origin)


def describe(value: object) -> str:
    """Return the type of `value` and its beginning, for an error message."""
    if value is None:
        return "None"
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    try:
        shown = repr(value)
    except Exception as error:  # a plugin's own __repr__ may do anything
        shown = f"whose repr raises {type(error).__name__}"
    return f"a {name} ({shown[:80]}{'...' if len(shown) > 80 else ''})"


def _fields(json: object, names: tuple[str, ...], origin: str) -> Json:
    if not isinstance(json, dict) or set(json) != set(names):
        raise Nonsense(f"{origin} returned {describe(json)}, not an object with {', '.join(names)}")
    return dict(json)


def _expect(value: object, kind: type, field: str, origin: str) -> None:
    if not isinstance(value, kind):
        raise Nonsense(
            f"{origin} returned {describe(value)} as {field}, which must be a {kind.__name__}; "
            f"wrap it in {kind.__name__}(...)"
        )


def _expect_optional_text(value: object, field: str, origin: str) -> None:
    if value is not None:
        _expect(value, str, field, origin)


def _expect_texts(value: object, field: str, origin: str) -> None:
    if not isinstance(value, tuple | list) or not all(isinstance(text, str) for text in value):
        raise Nonsense(f"{origin} returned {describe(value)} as {field}, which must be a tuple of str")


def _expect_numbers(value: object, field: str, origin: str) -> None:
    if not isinstance(value, Mapping):
        raise Nonsense(f"{origin} returned {describe(value)} as {field}, which must map names to numbers")
    for name, number in value.items():
        if not isinstance(name, str) or not isinstance(number, int | float) or not math.isfinite(number):
            raise Nonsense(
                f"{origin} returned {describe(number)} as {field}[{name!r}], which must be a finite number; "
                "leave out a metric that has no value"
            )
