"""Lays what was said about a run over one another, and keeps who said it.

A setting is a value under a key such as `simulator.workers`, with its source. Layers are put on in order, the
later one wins. Options of a plugin are for the one that their layer names, and count if that one is chosen in
the end; where the layer names none, they are for whoever is chosen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentrl.errors import UsageError
from agentrl.yaml_text import load_yaml

Key = tuple[str, ...]

# Keys under which one plugin is chosen by name; its options stand beside the name.
CHOICES = ("env", "agent", "algorithm", "engine", "trainer", "curriculum", "model", "runtime")
ALIASES = {"algo": "algorithm", "reward": "rewards", "hook": "hooks"}


@dataclass(frozen=True, slots=True)
class Layer:
    """Values by dotted key or as nested mappings, and who says so."""

    source: str
    values: Mapping[str, Any]

    def names(self) -> dict[str, str]:
        """Return the plugins that this layer chooses, by kind."""
        said: dict[str, Any] = {}
        for dotted, value in self.values.items():
            kind, *rest = _split(dotted)
            if not rest:
                said[kind] = value.get("name") if isinstance(value, Mapping) else value
            elif rest == ["name"]:
                said[kind] = value
        return {kind: said[kind] for kind in CHOICES if isinstance(said.get(kind), str) and said[kind]}


@dataclass(slots=True)
class Settings:
    """The value and source of every key that was set."""

    _values: dict[Key, tuple[Any, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, layers: Sequence[Layer]) -> "Settings":
        """Return the settings with `layers` put on in order."""
        settings = cls()
        chosen = {kind: name for layer in layers for kind, name in layer.names().items()}
        for layer in layers:
            passed_over = {kind for kind, name in layer.names().items() if name != chosen[kind]}
            for dotted, value in layer.values.items():
                key = _split(dotted)
                if key[0] not in passed_over:
                    settings.put(key, value, layer.source)
        return settings

    def name(self, kind: str) -> str | None:
        """Return the name of the plugin that is chosen under `kind`."""
        value, _ = self._values.get((kind, "name"), (None, ""))
        return None if value is None else str(value)

    def source(self, dotted: str) -> str:
        """Return who set `dotted` or what it belongs to; "default" if nobody did."""
        key = tuple(dotted.split("."))
        for length in range(len(key), 0, -1):
            if key[:length] in self._values:
                return self._values[key[:length]][1]
        if key[0] in CHOICES and (*key, "name") in self._values:
            return self._values[(*key, "name")][1]
        return next(
            (source for each, (_, source) in self._values.items() if each[: len(key)] == key), "default"
        )

    def sources(self) -> dict[str, str]:
        """Return who set each key."""
        return {".".join(key): source for key, (_, source) in self._values.items()}

    def tree(self) -> dict[str, Any]:
        """Return all values as nested mappings."""
        tree: dict[str, Any] = {}
        for key, (value, _) in self._values.items():
            *path, last = key
            place = tree
            for part in path:
                place = place.setdefault(part, {})
            place[last] = value
        return tree

    def put(self, key: Key, value: Any, source: str) -> None:
        """Set `key` to `value`.

        Raises:
            UsageError: a plugin is chosen by something that is not a name.
        """
        if key[0] in CHOICES and len(key) <= 2:
            self._put_choice(key, value, source)
        elif key == ("rewards",) and isinstance(value, Mapping):
            self._drop(key)
            for name, reward in value.items():
                self._put_reward((*key, str(name)), reward, source)
        elif key[0] == "rewards" and len(key) == 2:
            self._put_reward(key, value, source)
        else:
            self._assign(key, value, source)

    def _put_choice(self, key: Key, value: Any, source: str) -> None:
        if len(key) == 2 and key[1] != "name":
            self._assign(key, value, source)
        elif isinstance(value, str) and value:
            self._values[key[0], "name"] = (value, source)
        elif len(key) == 1 and isinstance(value, Mapping):
            if "name" in value:
                self.put((key[0], "name"), value["name"], source)
            for option, setting in value.items():
                if option != "name":
                    self._assign((*key, str(option)), setting, source)
        else:
            raise UsageError(f"{key[0]!r} must be the name of a plugin, not {value!r} ({source})")

    def _put_reward(self, key: Key, value: Any, source: str) -> None:
        """Set a reward's weight, or its weight and options; None takes it out."""
        if value is None:
            self._drop(key)
        elif isinstance(value, Mapping):
            self._values.setdefault((*key, "weight"), (1.0, source))
            self._assign(key, value, source)
        else:
            self._values[(*key, "weight")] = (value, source)

    def _assign(self, key: Key, value: Any, source: str) -> None:
        """Set a value; mappings are merged key by key."""
        if isinstance(value, Mapping) and value:
            for part, each in value.items():
                self._assign((*key, str(part)), each, source)
            return
        if value == {} and self._below(key):
            return
        self._drop(key)
        for length in range(1, len(key)):
            self._values.pop(key[:length], None)
        self._values[key] = (value, source)

    def _below(self, key: Key) -> list[Key]:
        return [each for each in self._values if each[: len(key)] == key]

    def _drop(self, key: Key) -> None:
        for each in self._below(key):
            del self._values[each]


def parse_sets(sets: Sequence[str]) -> list[Layer]:
    """Return a layer for each `key=value`; values are YAML.

    Raises:
        UsageError: there is no `=`, no key, or the value is not YAML.
    """
    layers = []
    for text in sets:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(
                f"--set {text!r} is not of the form key=value, such as --set simulator.workers=4"
            )
        layers.append(Layer("--set", {key.strip(): load_yaml(value, f"--set {text}")}))
    return layers


def _split(dotted: str) -> Key:
    first, *rest = str(dotted).split(".")
    return (ALIASES.get(first, first), *rest)
