"""Writes docs/reference.md: hooks, contracts, values and entry points, as their docstrings say."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from importlib.metadata import distribution
from types import ModuleType
from typing import Any

from markdown_text import code, codes, first_sentence, prose, table

import agentrl
from agentrl import Conversation, footprint, hookspecs, interfaces, policy_gradient, types
from agentrl.discovery import CORE, HOOK, KINDS, group_of, list_plugins
from agentrl.interfaces import Plugin
from agentrl.plugins import BASES, import_plugin
from agentrl.testing import pytest_plugin

INTRODUCTION = """\
# Reference

Written from the docstrings by `python docs/tools`; a test fails when it is out of date. Options are in
[options](options.md), plugins and what works with what in [capabilities](capabilities.md)."""
VALUES = (
    types.Task, types.Observation, types.Action, types.Turn, types.Outcome, types.Message, types.Trajectory,
    types.Segment, types.Span, types.Group, types.Batch, types.Credit, interfaces.Tokens,
    interfaces.Aggregation, types.Sampling, types.Completion, interfaces.Resources,
    footprint.Workload, footprint.Footprint, footprint.Occupant, footprint.Holding, footprint.Rehearsal,
)  # fmt: skip
HELPERS = (
    agentrl.RemoteEnv, agentrl.Environment, agentrl.SetupStep, agentrl.Sandbox, agentrl.LazyTasks,
    policy_gradient.PolicyGradient,
)  # fmt: skip
GROUPS_BESIDES = {
    "agentrl_normcore.gyms": "gyms of the env normcore: subclasses of `agentrl_normcore.gym.Gym`",
    "pytest11": "fixtures of pytest: ours are listed below",
    "console_scripts": "the command `agentrl`",
}


def page() -> str:
    """Return the whole page."""
    parts = [INTRODUCTION, *entry_points(), *hooks(), *contracts(), *values(), *helpers(), *fixtures()]
    return "\n\n".join(parts) + "\n"


def entry_points() -> Iterator[str]:
    """Yield the section on entry-point groups."""
    rows = [
        [code(group_of(kind)), kind, _what(kind), codes(each.name for each in shipped(kind))]
        for kind in KINDS
    ]
    rows += [
        [code(group), "", GROUPS_BESIDES[group], codes(names)] for group, names in other_groups().items()
    ]
    yield "## Entry points"
    yield "A line in one of these groups of a distribution's `pyproject.toml` makes a plugin known by name."
    yield table(["group", "kind", "what it names", "shipped"], rows)


def other_groups() -> dict[str, list[str]]:
    """Return the names in the core's entry-point groups that are for no kind of plugin."""
    kinds = {group_of(kind) for kind in KINDS}
    groups: dict[str, list[str]] = {}
    for point in distribution(CORE).entry_points:
        if point.group not in kinds:
            groups.setdefault(point.group, []).append(point.name)
    return groups


def _what(kind: str) -> str:
    if kind == HOOK:
        return (
            "a module with `@agentrl.hookimpl` functions, or a subclass of `agentrl.Plugin` with such methods"
        )
    return f"a subclass of [`agentrl.{BASES[kind].__name__}`](#{BASES[kind].__name__.lower()})"


def shipped(kind: str) -> list[Any]:
    """Return the plugins of a kind that come with the core."""
    return [info for info in list_plugins(kind) if info.distribution == CORE]


def hooks() -> Iterator[str]:
    """Yield the section on hooks."""
    yield "## Hooks"
    yield prose((hookspecs.__doc__ or "").partition("\n\n")[2])
    for name, hook in vars(hookspecs).items():
        if hasattr(hook, "agentrl_spec"):
            yield f"### {code(name)}"
            yield f"```python\n{signature(hook)}: ...\n```"
            yield prose(hook.__doc__ or "")
            if takers := [f"`{info.name}` ({info.kind})" for info in _takers(name)]:
                yield f"Taken part in by {', '.join(takers)}."


def _takers(hook: str) -> Iterator[Any]:
    """Yield the shipped plugins that implement a hook."""
    for kind in (HOOK, "algorithm"):
        for info in shipped(kind):
            if hasattr(getattr(import_plugin(kind, info.name), hook, None), "agentrl_impl"):
                yield info


def signature(function: Callable[..., Any]) -> str:
    """Return the line that defines a function, with the types as its source says them."""
    node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    return _head(node)


def _head(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Return `def name(arguments) -> type` without self and without quotes around types."""
    node.args.args = [each for each in node.args.args if each.arg != "self"]
    for each in [*node.args.args, *node.args.kwonlyargs]:
        each.annotation = _unquoted(each.annotation)
    returned = f" -> {ast.unparse(result)}" if (result := _unquoted(node.returns)) else ""
    word = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    return f"{word} {node.name}({ast.unparse(node.args)}){returned}"


def _unquoted(annotation: ast.expr | None) -> ast.expr | None:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return ast.parse(annotation.value, mode="eval").body
    return annotation


def contracts() -> Iterator[str]:
    """Yield the section on what a plugin of each kind is."""
    yield "## Contracts"
    yield prose((interfaces.__doc__ or "").partition("\n\n")[2])
    for contract in (Plugin, interfaces.PluginConfig, *BASES.values()):
        yield from described(contract)


def described(kind: type) -> Iterator[str]:
    """Yield what a class says of itself and of its public methods."""
    yield f"### {kind.__name__}"
    yield prose(kind.__doc__ or "")
    definition = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(definition, ast.ClassDef)
    if fields := [_field(node) for node in definition.body if _is_field(node)]:
        yield "```python\n" + "\n".join(fields) + "\n```"
    methods = [node for node in definition.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    if public := [node for node in methods if not node.name.startswith("_")]:
        yield "\n".join(_method(node) for node in public)


def _field(node: ast.stmt) -> str:
    """Return a field's line with the quotes that the source has: Python would write others."""
    return ast.unparse(node).replace("'", '"')


def _is_field(node: ast.stmt) -> bool:
    return isinstance(node, ast.AnnAssign) and not ast.unparse(node.target).startswith("_")


def _method(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Return a method as an entry of a list: how it is called, whether it must be written, what it does."""
    marks = {ast.unparse(each) for each in node.decorator_list}
    how = code(node.name if "property" in marks else _head(node).replace("def ", "", 1))
    must = " (**to be written**)" if "abstractmethod" in marks else ""
    paragraphs = prose(ast.get_docstring(node) or "").split("\n\n")
    return f"- {how}{must}: {' '.join(_flat(each) for each in paragraphs)}"


def _flat(paragraph: str) -> str:
    """Return a list within a list's entry as a sentence."""
    if not paragraph.startswith("- "):
        return paragraph
    return "; ".join(line.removeprefix("- ") for line in paragraph.split("\n"))


def values() -> Iterator[str]:
    """Yield the section on the values that are handed around."""
    yield "## Values"
    yield prose((types.__doc__ or "").partition("\n\n")[2])
    for value in VALUES:
        yield from described(value)


def helpers() -> Iterator[str]:
    """Yield the section on what authors may build on."""
    yield "## To build on"
    yield from described(Conversation)
    for helper in HELPERS:
        yield from described(helper)
    functions = [agentrl.system, agentrl.user, agentrl.tool, agentrl.hookimpl]
    yield "### Functions"
    yield table(["function", "what it does"], [[code(_name(each)), _summary(each)] for each in functions])
    yield "### Types"
    expert = (
        "`Callable[[Observation], str]`: plays one episode; is shown each observation, and returns the answer"
    )
    yield table(["type", "what it is"], [[code("Expert"), expert]])
    exported = [getattr(agentrl, name) for name in agentrl.__all__]
    errors = [each for each in exported if isinstance(each, type) and issubclass(each, Exception)]
    yield "### Errors"
    yield table(["error", "when"], [[code(each.__name__), first_sentence(each)] for each in errors])


def _name(function: Any) -> str:
    return "hookimpl" if function is agentrl.hookimpl else signature(function).removeprefix("def ")


def _summary(function: Any) -> str:
    return (
        "Mark a function as an implementation of a hook."
        if function is agentrl.hookimpl
        else first_sentence(function)
    )


def fixtures() -> Iterator[str]:
    """Yield the section on what pytest finds."""
    yield "## Fixtures"
    yield "Wherever pytest runs beside agentrl; `agentrl check NAME` does without pytest."
    yield table(["fixture", "what it is"], [[code(name), what] for name, what in _fixtures(pytest_plugin)])


def _fixtures(module: ModuleType) -> Iterator[tuple[str, str]]:
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, (ast.get_docstring(node) or "").partition("\n")[0]
