"""What a user's program is to us, and how the function that `agent.program` names is found."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, TypeAlias

from agentrl.types import Action

# Plays an action and returns the text of the next observation.
Step: TypeAlias = Callable[[str | Action], Awaitable[str]]


class ProgramFailed(Exception):
    """The user's program did something that it should not, or nothing; the message says what."""


class EpisodeOver(Exception):
    """The episode has ended, so there is nothing left to ask or to do."""


@dataclass(frozen=True, slots=True)
class Access:
    """Where the endpoint of one episode is, and the key that opens it."""

    base_url: str
    api_key: str = field(repr=False)
    model: str = "agentrl"


class Program(Protocol):
    """Answers an observation. Where the call is cancelled, the program is ended."""

    async def __call__(self, observation: str) -> object:
        """Return the program's reply to an observation: the text of an action, if all is well.

        Raises:
            ProgramFailed: the program did.
        """
        ...


# Makes the program of one episode.
MakeProgram: TypeAlias = Callable[[Access, Step], Program]


def load_function(name: str) -> Callable[..., Any]:
    """Return the function that `module:function` or `path/to/file.py:function` names.

    Modules are looked for in the working directory, too.

    Raises:
        ValueError: there is no such thing, or its module cannot be imported.
    """
    place, _, attribute = name.rpartition(":")
    if not place or not attribute:
        raise ValueError(f"{name!r} names no function; write module:function or path/to/file.py:function")
    try:
        module = _load_file(Path(place)) if place.endswith(".py") else _load_module(place)
    except Exception as error:  # a module may raise anything when it is imported
        raise ValueError(f"{place!r} cannot be imported: {type(error).__name__}: {error}") from error
    found = getattr(module, attribute, None)
    if not callable(found):
        raise ValueError(f"{place!r} has no function {attribute!r}")
    function: Callable[..., Any] = found
    return function


def _load_module(name: str) -> ModuleType:
    _look_in(Path.cwd())
    return importlib.import_module(name)


def _load_file(path: Path) -> ModuleType:
    """Import a file as Python would run it: what lies beside it can be imported, too."""
    path = path.resolve(strict=True)
    name = f"agentrl_program_{path.stem}"
    known = sys.modules.get(name)
    if known is not None and known.__file__ == str(path):
        return known
    _look_in(path.parent)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _look_in(folder: Path) -> None:
    if os.fspath(folder) not in sys.path:
        sys.path.insert(0, os.fspath(folder))
