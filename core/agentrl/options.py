"""Checks options against pydantic models, and says in a user's words what is wrong with them.

One sentence: the key as the user would write it, and either the nearest key that exists or what the value
has to be.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from agentrl.errors import UsageError

ModelT = TypeVar("ModelT", bound=BaseModel)

# What a value has to be, by pydantic's error types; all others speak for themselves.
_EXPECTED = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "list_type": "a list, such as [1, 2] or [a, b]",
    "tuple_type": "a list, such as [1, 2] or [a, b]",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "literal_error": "one of {expected}",
    "enum": "one of {expected}",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
}


def check_options(
    model: type[ModelT],
    options: Mapping[str, Any],
    owner: str,
    prefix: str,
    source: Callable[[str], str] = lambda key: "",
) -> ModelT:
    """Return `options` as a `model`.

    Args:
        model: what the options have to fit.
        options: by key.
        owner: whose options they are, for example "env 'deepsearch'".
        prefix: what stands before a key when the user sets it, for example "env".
        source: says who set a dotted key; "" where it goes without saying.

    Raises:
        UsageError: a key is unknown or missing, or a value is of the wrong type.
    """
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        raise UsageError(describe(error, model, owner, prefix, source)) from error


def describe(
    error: ValidationError,
    model: type[BaseModel],
    owner: str,
    prefix: str,
    source: Callable[[str], str] = lambda key: "",
) -> str:
    """Return in one sentence what `error` found wrong."""
    found: dict[str, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        found.setdefault(_dotted(detail, model, prefix), []).append(detail)
    return "; ".join(
        _sentence(key, details, model, owner, prefix) + _origin(key, details[0], source)
        for key, details in found.items()
    )


def _origin(key: str, detail: ErrorDetails, source: Callable[[str], str]) -> str:
    """Return who set what is wrong, where the user cannot see it on the command line."""
    if detail["type"] != "value_error" or not isinstance(detail["input"], Mapping):
        return f" ({source(key)})" if _hidden(source(key)) else ""
    # Options that do not go together: those that the message names.
    words = set(re.findall(r"\w+", detail["msg"]))
    named = {name: source(join(key, name)) for name in detail["input"] if name in words}
    told = [f"{join(key, name)!r}: {who}" for name, who in named.items() if _hidden(who)]
    return f" ({', '.join(told)})" if told else ""


def _hidden(source: str) -> bool:
    return source not in {"", "default", "command line", "--set"}


def nearest(name: str, names: Iterable[str], likeness: float = 0.6) -> str | None:
    """Return which of `names` was probably meant; `likeness` 1 allows no difference."""
    close = get_close_matches(name, list(names), n=1, cutoff=likeness)
    return close[0] if close else None


def suggestion(name: str, names: Iterable[str], what: str = "there are") -> str:
    """Return how a message about the unknown `name` ends: the nearest name, or all of them."""
    names = sorted(names)
    close = nearest(name, names)
    if close:
        return f"did you mean {close!r}?"
    return f"{what}: {', '.join(names)}" if names else f"{what} none"


def join(*parts: str | int) -> str:
    """Return a dotted key."""
    return ".".join(str(part) for part in parts if part != "")


def _dotted(detail: ErrorDetails, model: type[BaseModel], prefix: str) -> str:
    """Return the key as the user writes it: pydantic's path, without the names of union members in it."""
    parts: list[str | int] = []
    annotation: Any = model
    for part in detail["loc"]:
        if annotation is None:
            break
        parts.append(part)
        annotation = _inside(annotation, part)
    return join(prefix, *parts) or prefix


def _inside(annotation: Any, key: str | int) -> Any:
    """Return the type of what is under `key` in a value of a type; None where that is not certain."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(key))
        return _bare(field.annotation) if field else None
    inner = get_args(annotation)
    if get_origin(annotation) is dict and len(inner) == 2:
        return _bare(inner[1])
    if get_origin(annotation) in (list, tuple, set, frozenset) and inner:
        return _bare(inner[0])
    return None


def _bare(annotation: Any) -> Any:
    """Return a type without `Annotated`, and without "or None"; None for other unions."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        members = [each for each in get_args(annotation) if each is not type(None)]
        return _bare(members[0]) if len(members) == 1 else None
    return annotation


def _model_at(model: type[BaseModel], path: Sequence[str | int]) -> type[BaseModel] | None:
    annotation: Any = model
    for part in path:
        annotation = _inside(annotation, part)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _sentence(key: str, details: list[ErrorDetails], model: type[BaseModel], owner: str, prefix: str) -> str:
    detail = details[0]
    if detail["type"] == "extra_forbidden":
        return _unknown(key, detail, model, owner, prefix)
    if detail["type"] == "missing":
        return f"{owner} needs {key!r} to be set"
    if detail["type"] == "value_error":
        text = str(detail.get("ctx", {}).get("error", detail["msg"]))
        return f"{key}: {text}" if key else text
    expected = list(dict.fromkeys(_expected(item) for item in details))
    return f"{key!r} must be {' or '.join(expected)}, not {_short(detail['input'])}"


def _unknown(key: str, detail: ErrorDetails, model: type[BaseModel], owner: str, prefix: str) -> str:
    *path, last = detail["loc"]
    holder = _model_at(model, path)
    names = list(holder.model_fields) if holder else []
    if not names:
        return f"{owner} has no option {key!r}: it takes no options"
    close = nearest(str(last), names)
    if close:
        return f"{owner} has no option {key!r}; did you mean {join(prefix, *path, close)!r}?"
    return f"{owner} has no option {key!r}; there are: {', '.join(sorted(names))}"


def _expected(detail: ErrorDetails) -> str:
    template = _EXPECTED.get(detail["type"])
    if template:
        return template.format_map(detail.get("ctx", {}))
    return detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
