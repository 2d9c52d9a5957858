"""How a model writes the calls of tools, and how they are read.

Where the model's chat template shows tools itself, it writes them into the prompt, and only the model's
answer is read here. Where it does not, or a format has its own way, tools, calls and results are written as
text.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentrl.types import Message, user
from agentrl_endpoint.requests import Refused, Tool


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool; `arguments` is a JSON object as text, always written in the same way."""

    name: str
    arguments: str


def make_call(name: str, arguments: Mapping[str, Any]) -> Call:
    """Return a call."""
    return Call(name, json.dumps(arguments, ensure_ascii=False))


class ToolFormat(ABC):
    """One way to write calls of tools.

    Attributes:
        native: whether tools are left to chat templates that show them.
    """

    native = True

    @abstractmethod
    def describe(self, tools: Sequence[Tool]) -> str:
        """Return what a system message says about `tools`.

        Raises:
            Refused: a tool cannot be called in this format.
        """

    @abstractmethod
    def write(self, call: Call) -> str:
        """Return a call as the model would write it."""

    @abstractmethod
    def read(self, text: str, tools: Sequence[Tool]) -> tuple[str, list[Call]]:
        """Return what of the model's text is no call, and the calls of `tools` in it.

        What is not quite a call stays text: that is the model's mistake, and the program's to answer.
        """

    def result(self, text: str) -> Message:
        """Return what a tool has returned as a message."""
        return user(text)

    def stops(self, tools: Sequence[Tool]) -> tuple[str, ...]:
        """Return strings that end a turn besides those of the request; they stay in the text."""
        return ()


class Hermes(ToolFormat):
    """JSON in `<tool_call>`, as Qwen and many others are trained to write."""

    _PATTERN = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)

    def describe(self, tools: Sequence[Tool]) -> str:
        """Return the words of Qwen2.5's chat template."""
        schemas = "\n".join(json.dumps(each.model_dump(exclude_none=True)) for each in tools)
        return (
            "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
            "You are provided with function signatures within <tools></tools> XML tags:\n"
            f"<tools>\n{schemas}\n</tools>\n\n"
            "For each function call, return a json object with function name and arguments "
            "within <tool_call></tool_call> XML tags:\n"
            '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
        )

    def write(self, call: Call) -> str:
        """Return the call in its tags."""
        return (
            f'<tool_call>\n{{"name": {json.dumps(call.name)}, "arguments": {call.arguments}}}\n</tool_call>'
        )

    def read(self, text: str, tools: Sequence[Tool]) -> tuple[str, list[Call]]:
        """Read all calls of known tools whose JSON is whole."""
        calls: list[Call] = []
        names = {each.function.name for each in tools}

        def take(found: re.Match[str]) -> str:
            call = _from_json(found[1])
            if call is None or call.name not in names:
                return found[0]
            calls.append(call)
            return ""

        return self._PATTERN.sub(take, text).strip(), calls

    def result(self, text: str) -> Message:
        """Return the result in its tags."""
        return user(f"<tool_response>\n{text}\n</tool_response>")


class Tags(ToolFormat):
    """`<search>text</search>` calls the tool `search`, with the text for its parameter, and ends the turn."""

    native = False

    def describe(self, tools: Sequence[Tool]) -> str:
        """Return a line for each tool."""
        lines = ["To call a tool, write it as a tag:"]
        for each in tools:
            name, about = each.function.name, each.function.description or ""
            lines.append(f"<{name}>{_parameter(each)}</{name}>: {about}".strip())
        return "\n".join(lines)

    def write(self, call: Call) -> str:
        """Return the tag."""
        values = json.loads(call.arguments).values()
        return f"<{call.name}>{''.join(str(value) for value in values)}</{call.name}>"

    def read(self, text: str, tools: Sequence[Tool]) -> tuple[str, list[Call]]:
        """Read the tags of all tools, in order."""
        calls: list[Call] = []
        parameters = {each.function.name: _parameter(each) for each in tools}
        names = "|".join(map(re.escape, parameters))

        def take(found: re.Match[str]) -> str:
            calls.append(make_call(found[1], {parameters[found[1]]: found[2].strip()}))
            return ""

        rest = re.sub(rf"<({names})>(.*?)</\1>", take, text, flags=re.DOTALL) if names else text
        return rest.strip(), calls

    def stops(self, tools: Sequence[Tool]) -> tuple[str, ...]:
        """Return the closing tags."""
        return tuple(f"</{each.function.name}>" for each in tools)


FORMATS: Mapping[str, type[ToolFormat]] = {"hermes": Hermes, "tags": Tags}


def _from_json(text: str) -> Call | None:
    """Return the call that a JSON object stands for, None if it does not."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    return make_call(value["name"], arguments) if isinstance(arguments, dict) else None


def _parameter(tool: Tool) -> str:
    """Return the name of a tool's only parameter.

    Raises:
        Refused: it has none, or several.
    """
    names = list(tool.function.parameters.get("properties", {}))
    if len(names) != 1:
        raise Refused(
            f"the tool {tool.function.name!r} has {len(names)} parameters, but agent.tool_format=tags calls "
            "tools with one; give it one, or use another format"
        )
    return str(names[0])
