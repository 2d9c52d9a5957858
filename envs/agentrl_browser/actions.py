"""What an agent can do in a page, as text or as a tool call, in the format of the ecosystem.

An action is one Python-like call, `click('12')`, or a tool call, `{"name": "click", "arguments": {"bid":
"12"}}`. In the place of a bid there may be what the observation calls the element, `click('Save')`. A reply
may think first: the last line, fenced block or tool call that is an action counts. The table below is all
there is: help texts and tool schemas are made of it.
"""

import ast
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["element", "text", "texts", "number"]
# A longer action is none: what a model repeats for ever need not be parsed.
LONGEST = 20_000
REQUIRED = object()


class NotAnAction(ValueError):
    """A reply holds no action; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of an action; `default` is what it is if left out."""

    name: str
    kind: Kind
    doc: str
    default: Any = REQUIRED


@dataclass(frozen=True, slots=True)
class ActionKind:
    """An action that can be called. `ends` tells whether it ends the episode."""

    name: str
    parameters: tuple[Parameter, ...]
    doc: str
    example: str
    ends: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """An action with all its arguments."""

    name: str
    arguments: Mapping[str, Any]

    @property
    def ends(self) -> bool:
        """Return whether it ends the episode."""
        return ACTIONS[self.name].ends

    @property
    def targets(self) -> Mapping[str, str]:
        """Return what it calls the elements that it acts on, by parameter."""
        elements = (each.name for each in ACTIONS[self.name].parameters if each.kind == "element")
        return {name: self.arguments[name] for name in elements if self.arguments[name]}

    def __str__(self) -> str:
        """Return it as an agent would write it."""
        return f"{self.name}({', '.join(repr(value) for value in self.arguments.values())})"


_BID = Parameter("bid", "element", "of the element")
_TABLE = (
    ActionKind("click", (_BID,), "Click an element.", "click('12')"),
    ActionKind("dblclick", (_BID,), "Click an element twice.", "dblclick('12')"),
    ActionKind("hover", (_BID,), "Move the mouse over an element.", "hover('12')"),
    ActionKind(
        "fill",
        (_BID, Parameter("value", "text", "to stand in it afterwards")),
        "Replace the text of a field.",
        "fill('45', 'some text')",
    ),
    ActionKind("clear", (_BID,), "Empty a field.", "clear('45')"),
    ActionKind("focus", (_BID,), "Give an element the focus.", "focus('45')"),
    ActionKind(
        "select_option",
        (_BID, Parameter("options", "texts", "to be chosen, by value or label")),
        "Choose in a native list of options.",
        "select_option('48', 'blue')",
    ),
    ActionKind(
        "press",
        (
            Parameter("bid", "element", "of the element, or '' for what has the focus"),
            Parameter("key_comb", "text", "such as Enter, a or Control+a"),
        ),
        "Press a key, perhaps with others held.",
        "press('88', 'Enter')",
    ),
    ActionKind(
        "scroll",
        (
            Parameter("delta_x", "number", "pixels to the right"),
            Parameter("delta_y", "number", "pixels down"),
            Parameter("bid", "element", "of what to scroll; the page if left out", ""),
        ),
        "Scroll.",
        "scroll(0, 200)",
    ),
    ActionKind(
        "drag_and_drop",
        (
            Parameter("from_bid", "element", "of what to drag"),
            Parameter("to_bid", "element", "of where to drop it"),
        ),
        "Drag one element onto another.",
        "drag_and_drop('5', '7')",
    ),
    ActionKind("noop", (Parameter("wait_ms", "number", "to wait", 1000),), "Wait.", "noop(1000)"),
    ActionKind("done", (), "Say that the task is done.", "done()", ends=True),
    ActionKind(
        "send_msg_to_user",
        (Parameter("text", "text", "for the user"),),
        "Answer the user, where the task asks for an answer.",
        "send_msg_to_user('42')",
        ends=True,
    ),
    ActionKind(
        "ask_human",
        (Parameter("question", "text", "for the user"),),
        "Ask, where the task cannot be done without knowing more, or without approval.",
        "ask_human('Which of the two?')",
        ends=True,
    ),
    ActionKind(
        "report_infeasible",
        (Parameter("reason", "text", "why"),),
        "Say that the task cannot be done.",
        "report_infeasible('There is no such room.')",
        ends=True,
    ),
)
ACTIONS: Mapping[str, ActionKind] = {each.name: each for each in _TABLE}
HELP = "Reply with one action, such as click('12'); there is " + ", ".join(ACTIONS) + "."

_TOOL_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
_FENCE = re.compile(r"```[a-z_]*\n?(.*?)```", re.DOTALL)
_CALL = re.compile(r"([A-Za-z_]\w*)\s*\(.*\)\s*;?", re.DOTALL)
_BEGUN = re.compile(r"([A-Za-z_]\w*)\s*\(")


def parse(reply: str) -> Call:
    """Return the action that a reply ends in.

    Raises:
        NotAnAction: there is none, or it is called wrongly.
    """
    wrong: NotAnAction | None = None
    for text in _candidates(reply):
        if text.startswith("{") or _CALL.fullmatch(text):
            try:
                return _from_json(text) if text.startswith("{") else _from_python(text.rstrip("; "))
            except NotAnAction as error:
                if "\n" not in text:
                    raise wrong or error from error
                wrong = wrong or error  # of several lines the last may be an action
    if wrong is not None:
        raise wrong
    for text in _candidates(reply):
        if (begun := _BEGUN.match(text)) and (kind := ACTIONS.get(begun[1])):
            raise NotAnAction(
                f"{text[:80]!r} is no whole call: close it with a bracket, and write nothing after it, as in "
                f"{kind.example}"
            )
    raise NotAnAction(f"that is no action. {HELP}")


def _candidates(reply: str) -> Iterator[str]:
    """Yield what may be the action, the likeliest first: what stands later, and blocks before mere lines."""
    end = reply[-LONGEST:].strip()
    found = [block for pattern in (_TOOL_CALL, _FENCE) for block in pattern.finditer(end)]
    blocks = sorted(found, key=lambda block: block.end(), reverse=True)
    if blocks:
        after = reversed(end[blocks[0].end() :].splitlines())
        yield from (line for each in after if _is_begun(line := each.strip().strip("`")))
    for block in blocks:
        yield block[1].strip()
        yield from (line.strip() for line in reversed(block[1].strip().splitlines()))
    yield end
    yield from (line.strip().strip("`") for line in reversed(end.splitlines()))


def _is_begun(line: str) -> bool:
    """Return whether a line that stands by itself is meant to be an action."""
    begun = _BEGUN.match(line)
    return line.startswith("{") or (begun is not None and begun[1] in ACTIONS)


def _from_json(text: str) -> Call:
    try:
        said = json.loads(text)
        name, arguments = said["name"], said.get("arguments", said.get("parameters", {}))
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
        return _call(str(name), (), dict(arguments))
    except NotAnAction:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        example = '{"name": "click", "arguments": {"bid": "12"}}'
        raise NotAnAction(f"that is no tool call, which looks like {example}. {HELP}") from error


def _from_python(text: str) -> Call:
    try:
        call = ast.parse(text, mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise NotAnAction(f"that is no action. {HELP}")
        positional = tuple(ast.literal_eval(each) for each in call.args)
        named = {each.arg: ast.literal_eval(each.value) for each in call.keywords if each.arg}
    except NotAnAction:
        raise
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise NotAnAction(f"{text[:80]!r} cannot be read; quote texts, as in fill('45', 'text')") from error
    return _call(call.func.id, positional, named)


def _call(name: str, positional: tuple[Any, ...], named: dict[str, Any]) -> Call:
    kind = ACTIONS.get(name)
    if kind is None:
        raise NotAnAction(f"there is no action {name[:80]!r}. {HELP}")
    names = [parameter.name for parameter in kind.parameters]
    given = {**dict(zip(names, positional, strict=False)), **named}
    if len(positional) > len(names) or set(given) - set(names):
        raise NotAnAction(f"{name} takes {', '.join(names) or 'nothing'}, as in {kind.example}")
    return Call(name, {each.name: _argument(kind, each, given) for each in kind.parameters})


def _argument(kind: ActionKind, parameter: Parameter, given: Mapping[str, Any]) -> Any:
    value = given.get(parameter.name, parameter.default)
    if value is REQUIRED:
        raise NotAnAction(f"{kind.name} lacks its {parameter.name}, as in {kind.example}")
    match parameter.kind:
        case "number" if isinstance(value, int | float) and abs(value) < 1e6:
            return value
        case "element" | "text" if _is_text(value):
            return _clean(str(value))
        case "texts" if _is_text(value):
            return [_clean(str(value))]
        case "texts" if isinstance(value, list | tuple) and all(map(_is_text, value)):
            return [_clean(str(each)) for each in value]
    raise NotAnAction(f"{parameter.name} of {kind.name} must be a {parameter.kind}, as in {kind.example}")


def _is_text(value: object) -> bool:
    """Return whether a value is a text, or a number that stands for one."""
    if isinstance(value, str):
        return True
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1e18


def _clean(text: str) -> str:
    """Return `text` without what is no Unicode: half a pair of surrogates cannot be sent anywhere."""
    return text.encode("utf-8", "replace").decode()


def help_text() -> str:
    """Return all actions, one a line, for a system prompt."""
    return "\n".join(f"{kind.example}  {kind.doc}" for kind in _TABLE)


def tool_schemas() -> list[dict[str, Any]]:
    """Return all actions as JSON schemas of tools, as chat templates and APIs take them."""
    return [{"type": "function", "function": _schema(kind)} for kind in _TABLE]


def _schema(kind: ActionKind) -> dict[str, Any]:
    types: dict[Kind, dict[str, Any]] = {
        "element": {"type": "string"},
        "text": {"type": "string"},
        "texts": {"type": "array", "items": {"type": "string"}},
        "number": {"type": "number"},
    }
    properties = {each.name: {**types[each.kind], "description": each.doc} for each in kind.parameters}
    required = [each.name for each in kind.parameters if each.default is REQUIRED]
    parameters = {"type": "object", "properties": properties, "required": required}
    return {"name": kind.name, "description": kind.doc, "parameters": parameters}
