"""Spare AppWorld work that it does anew for every world, and whose result is the same each time.

Together a sixth of what it takes to open, play and judge a world. Worker and judge both read this file, which
imports nothing of ours.
"""

import functools
import sys
import types
import weakref
from collections.abc import Callable
from typing import Any


def hasten() -> None:
    """Have AppWorld keep its routes, the details of its databases, and where in a module the clock is."""
    from appworld import requester  # type: ignore[import-not-found]
    from appworld.apps.model_lib import Database  # type: ignore[import-not-found]
    from freezegun import api  # type: ignore[import-not-found]

    requester.build_main_app = functools.cache(requester.build_main_app)
    Database._get_engine_to_details = staticmethod(_kept_details(Database._get_engine_to_details))
    api._get_module_attributes_hash = _hash_of_modules(api._get_module_attributes_hash)


def prepare_shell(*, used: int | None = 1) -> None:
    """Make the shell of the next worlds now, for so many of them, None for all; later ones make their own.

    Code of episodes leaves variables in a shell, so only worlds that run none may share it.
    """
    from appworld import environment
    from traitlets.config import Config

    # As AppWorld makes it, which puts the hook back, too.
    config, hook, make = Config(), sys.excepthook, environment.InteractiveShellEmbed
    config.HistoryManager.enabled = False
    shell, left = make(config=config), used
    sys.excepthook = hook

    def prepared(**options: Any) -> Any:
        nonlocal left
        if left == 0:
            return make(**options)
        left = None if left is None else left - 1
        return shell

    environment.InteractiveShellEmbed = prepared


def _kept_details(find: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return `find`, which tells of an engine where its database is and how it is reached, with a memory.

    Only of a database in memory: that has one connection for good.
    """
    # Weak, or no engine would ever be freed.
    kept: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()

    def details(engine: Any) -> Any:
        if engine in kept:
            return kept[engine]
        found = find(engine)
        if found[3] == "memory":
            kept[engine] = found
        return found

    return details


def _hash_of_modules(plain: Callable[[Any], str]) -> Callable[[Any], str]:
    """Return what tells whether a module has changed since freezegun looked for the clock in it.

    freezegun sorts the names in all modules for that, several times a world. A module that has got or lost a
    name has another number of them; the apps of AppWorld do not put one in another's place.
    """

    def number_of_names(module: Any) -> str:
        plainly = type(module) is types.ModuleType
        return f"{id(module)}-{len(vars(module))}" if plainly else plain(module)

    return number_of_names
