"""Says what a run was made of, so that it can be made again: versions, tasks, seeds, hashes of data."""

import hashlib
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import agentrl
from agentrl import plugins
from agentrl.config import RunConfig
from agentrl.errors import UsageError
from agentrl.interfaces import Env
from agentrl.plugins import HOOK, PluginInfo
from agentrl.settings import CHOICES
from agentrl.types import Task

# What must be as it was when a run is resumed, with the words for it.
_LASTING = {"model": "the model", "data": "the env's data", "held_out": "the set of held-out tasks"}
_LIBRARIES = ("torch", "transformers", "tokenizers", "peft", "numpy", "pydantic", "pluggy", "stevedore")


def make_manifest(config: RunConfig, env: Env, held_out: Sequence[Task], model: Path | str) -> dict[str, Any]:
    """Return the manifest of a run that trains `model` in `env` and is measured on `held_out`."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "agentrl": agentrl.__version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "libraries": {name: found for name in _LIBRARIES if (found := _version(name))},
        "plugins": [_describe(info) for info in used_plugins(config)],
        "model": _model(model),
        "data": dict(env.fingerprint()),
        "splits": {
            split: len(env.tasks(split))
            for split in dict.fromkeys((config.train_split, config.evaluation.split))
        },
        "held_out": [task.id for task in held_out],
        "seeds": {"run": config.seed, "evaluation": config.evaluation.seed},
    }


def check_same(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Refuse to resume a run whose model, data or held-out tasks are no longer what they were.

    Raises:
        UsageError: it says which.
    """
    for key, words in _LASTING.items():
        before, now = _essence(old.get(key)), _essence(new.get(key))
        if before != now:
            raise UsageError(
                f"{words} is not what it was when the run began, so the run cannot be resumed; "
                f"bring it back, or start a new run{_difference(before, now)}"
            )


def _essence(value: Any) -> Any:
    """Return what counts: of a model its files, wherever they are."""
    return value.get("files", value) if isinstance(value, Mapping) else value


def used_plugins(config: RunConfig) -> list[PluginInfo]:
    """Return what is known of every plugin that takes part in a run."""
    names = {(kind, getattr(config, kind).name) for kind in CHOICES}
    names |= {("reward", name) for name in config.rewards}
    names |= {("algorithm", "imitation")} if config.warmup else set()
    return [
        info
        for info in plugins.list_plugins()
        if (info.kind, info.name) in names or (info.kind == HOOK and not info.disabled)
    ]


def _describe(info: PluginInfo) -> dict[str, str]:
    return {
        "kind": info.kind,
        "name": info.name,
        "target": info.target,
        "distribution": info.distribution,
        "version": info.version,
    }


def _model(model: Path | str) -> dict[str, Any]:
    """Return the model's name or path, with the SHA-256 of its files."""
    if isinstance(model, str):
        return {"name": model}
    files = sorted(path for path in model.rglob("*") if path.is_file())
    return {
        "path": str(model),
        "files": {path.relative_to(model).as_posix(): _sha256(path) for path in files},
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _difference(old: Any, new: Any) -> str:
    """Return which entry differs, where that can be said shortly."""
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        return ""
    changed = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
    return f" (changed: {', '.join(changed)})"
