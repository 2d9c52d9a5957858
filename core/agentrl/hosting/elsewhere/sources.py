"""What of a plugin's own code its environment is made of."""

import hashlib
from pathlib import Path

from agentrl.hosting.elsewhere.declaration import Environment


def hash_sources(environment: Environment, package: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of the plugin that the steps depend on, by its path."""
    named = {
        source
        for step in environment.steps
        if step.option is None
        for source in (*step.sources, *filter(None, map(_named_file, step.arguments)))
    }
    files = {file for name in sorted(named) for file in _files_below(package / name)}
    return {
        file.relative_to(package).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(files)
    }


def _named_file(argument: str) -> str | None:
    before, slash, name = argument.partition("{package}/")
    return name if slash and not before else None


def _files_below(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return [file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts]


def mentions_package(environment: Environment) -> bool:
    """Return whether the set-up uses files of the plugin, so that its place belongs to the key."""
    arguments = [argument for step in environment.steps for argument in step.arguments]
    return any("{package}" in text for text in (*arguments, *environment.variables.values()))
