"""Finds which extras of the core bring what a plugin's own code imports."""

import ast
from importlib.util import find_spec
from pathlib import Path

from packaging.utils import canonicalize_name

from agentrl.discovery import CORE, PluginInfo, requirements_of
from agentrl.plugins import import_plugin


def extras(info: PluginInfo) -> list[str]:
    """Return the extras that bring what a plugin's modules import, and one that is called like the plugin."""
    wanted = {extra: brought(extra, info) for extra in _extras(info)}
    needed = foreign(info) & set().union(*wanted.values())
    chosen = [extra for extra in wanted if canonicalize_name(extra) == canonicalize_name(info.name)]
    for extra in sorted(wanted, key=lambda extra: len(wanted[extra])):
        covered = set().union(*(wanted[each] for each in chosen))
        if wanted[extra] & (needed - covered):
            chosen.append(extra)
    return chosen


def _extras(info: PluginInfo) -> list[str]:
    """Return the extras that are for single plugins: neither for all training nor for work on the core."""
    distribution = info.entry_point.dist
    every = distribution.metadata.get_all("Provides-Extra") if distribution else None
    return [extra for extra in every or () if extra not in ("torch", "laptop", "test", "bench", "docs")]


def brought(extra: str, info: PluginInfo) -> set[str]:
    """Return the modules that an extra brings and `torch` does not, by the names of distributions."""
    names = {name: set[str]() for name in (extra, "torch")}
    for requirement in requirements_of(info.entry_point.dist):
        for name, modules in names.items():
            if (
                requirement.marker
                and requirement.marker.evaluate({"extra": name})
                and requirement.name != CORE
            ):
                modules.add(requirement.name.replace("-", "_").lower())
    return names[extra] - names["torch"]


def foreign(info: PluginInfo) -> set[str]:
    """Return the modules that a plugin's own modules import from elsewhere, wherever in them they do."""
    plugin = import_plugin(info.kind, info.name)
    waiting = [plugin.__module__ if isinstance(plugin, type) else plugin.__name__]
    package = waiting[0].partition(".")[0]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        own = name == package or name.startswith(f"{package}.")
        if name not in seen and own:
            waiting += imported(name)
        seen.add(name)
    return {name.partition(".")[0] for name in seen}


def imported(module: str) -> set[str]:
    """Return the modules that a module's source imports."""
    found = find_spec(module)
    names: set[str] = set()
    for node in ast.walk(ast.parse(Path(str(found.origin)).read_text())) if found else ():
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return names
