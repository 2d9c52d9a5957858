"""Says what options a plugin has, from its `Config`.

An option's description is that of its pydantic field, or else its line under "Attributes:" in the docstring
of the `Config`, or of one that this inherits from.
"""

import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from agentrl.discovery import HOOK, PluginInfo
from agentrl.files import to_json
from agentrl.interfaces import Plugin
from agentrl.plugins import import_plugin, load, option_prefix

_TYPES: dict[Any, str] = {str: "text", float: "number", int: "integer", bool: "true | false", Path: "path"}


@dataclass(frozen=True, slots=True)
class Option:
    """What can be set: its key for `--set`, and the rest as text."""

    key: str
    type: str
    default: str
    description: str


@dataclass(frozen=True, slots=True)
class Description:
    """A plugin's first sentence and its options."""

    summary: str
    options: list[Option]


def describe(info: PluginInfo) -> Description:
    """Import a plugin and return what it says about itself.

    Raises:
        PluginError: it cannot be imported or is not what its entry-point group says.
    """
    plugin = import_plugin(HOOK, info.name) if info.kind == HOOK else load(info.kind, info.name)
    summary = (inspect.getdoc(plugin) or "").strip().split("\n")[0]
    config = plugin.Config if isinstance(plugin, type) and issubclass(plugin, Plugin) else None
    return Description(summary, options_of(config, option_prefix(info.kind, info.name)) if config else [])


def options_of(config: type[BaseModel], prefix: str) -> list[Option]:
    """Return the options of a `Config`, those of nested ones included."""
    described: dict[str, str] = {}
    for each in reversed(config.__mro__):
        described |= _attributes(inspect.cleandoc(each.__doc__ or ""))
    options = []
    for name, field in config.model_fields.items():
        key = f"{prefix}.{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            options += options_of(field.annotation, key)
        else:
            text = field.description or described.get(name, "")
            options.append(Option(key, type_name(field.annotation), _default(field), text))
    return options


def type_name(annotation: Any) -> str:
    """Return a type as people read it."""
    if annotation is type(None):
        return "null"
    if get_origin(annotation) is Literal:
        return " | ".join(map(str, get_args(annotation)))
    if get_origin(annotation) in (Union, UnionType):
        return " | ".join(map(type_name, get_args(annotation)))
    if get_origin(annotation):
        inside = ", ".join(type_name(each) for each in get_args(annotation) if each is not Ellipsis)
        name = "list" if get_origin(annotation) in (tuple, list, set, frozenset) else "mapping"
        return f"{name}[{inside}]" if inside else name
    return _TYPES.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "(required)"
    value = field.get_default(call_default_factory=True)
    text = to_json(value) if isinstance(value, bool | tuple | list | None) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _attributes(docstring: str) -> dict[str, str]:
    """Return the lines under "Attributes:" by name."""
    _, _, section = docstring.partition("Attributes:\n")
    described: dict[str, str] = {}
    name = ""
    for line in section.split("\n"):
        entry = re.match(r" {4}(\w+): (.*)", line)
        if entry:
            name = entry[1]
            described[name] = entry[2].strip()
        elif name and line.startswith("     "):
            described[name] += f" {line.strip()}"
        elif line.strip():
            break
    return described
