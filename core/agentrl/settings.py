"""Lays what was said about a run over one another, and keeps who said it.

A setting is a value under a key such as `simulator.workers`, with its source. Layers are put on in order, the
later one wins. Options of a plugin are for the one that their layer names, and count if that one is chosen in
the end; where the layer names none, they are for whoever is chosen.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
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
    """What somebody says: values by key, where a plugin that is chosen stands under `name` of its kind."""

    source: str
    entries: tuple[tuple[Key, Any], ...]

    @classmethod
    def of(cls, source: str, values: Mapping[str, Any]) -> "Layer":
        """Return what `source` says in `values`, by dotted key or as nested mappings."""
        return cls(
            source, tuple(entry for dotted, value in values.items() for entry in _entries(dotted, value))
        )

    def names(self) -> dict[str, str]:
        """Return the plugins that this layer chooses, by kind."""
        said = {key[0]: value for key, value in self.entries if _chooses(key)}
        return {kind: name for kind, name in said.items() if isinstance(name, str) and name}

    def without(self, keys: Collection[Key]) -> "Layer":
        """Return the layer without what it says of `keys`."""
        return Layer(self.source, tuple(entry for entry in self.entries if entry[0] not in keys))


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
            for key, value in layer.entries:
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
        if _chooses(key) and not (isinstance(value, str) and value):
            raise UsageError(f"{key[0]!r} must be the name of a plugin, not {value!r} ({source})")
        if key == ("rewards",) and isinstance(value, Mapping):
            self._put_rewards(value, source)
        elif key[0] == "rewards" and len(key) == 2:
            self._put_reward(key, value, source)
        else:
            self._assign(key, value, source)

    def _put_rewards(self, rewards: Mapping[str, Any], source: str) -> None:
        """Choose these rewards and no others; one that was chosen before keeps its options."""
        options = {key: self._values[key] for key in self._below(("rewards",)) if key[2:] != ("weight",)}
        self._drop(("rewards",))
        for name, reward in rewards.items():
            self._values.update({key: each for key, each in options.items() if key[1] == str(name)})
            self._put_reward(("rewards", str(name)), reward, source)

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
        UsageError: as `parse_set`.
    """
    return [Layer.of("--set", dict([parse_set(text)])) for text in sets]


def parse_set(text: str) -> tuple[str, Any]:
    """Return the dotted key and the value of `key=value`.

    Raises:
        UsageError: there is no `=`, no key, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set {text!r} is not of the form key=value, such as --set simulator.workers=4")
    return key.strip(), load_yaml(value, f"--set {text}")


def _entries(dotted: str, value: Any) -> Iterator[tuple[Key, Any]]:
    """Yield what is said under a dotted key: of a plugin its name, then each of its options."""
    first, *rest = str(dotted).split(".")
    key = (ALIASES.get(first, first), *rest)
    if len(key) > 1 or key[0] not in CHOICES:
        yield key, value
    elif isinstance(value, Mapping):
        for option in sorted(value, key=lambda option: option != "name"):
            yield (*key, str(option)), value[option]
    else:
        yield (*key, "name"), value


def _chooses(key: Key) -> bool:
    return len(key) == 2 and key[0] in CHOICES and key[1] == "name"
