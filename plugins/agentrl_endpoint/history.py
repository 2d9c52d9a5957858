"""Recognises in the messages of a request what was said before, so that it stays token by token.

A program sends its whole dialogue with every request. Where that goes on from a point at which the model has
spoken, only what is new is rendered, behind the very tokens that stand there: those of the last answer, or of
an earlier one, where a program goes back or has several dialogues. Where it does not, because the program has
rewritten its history, a new segment begins. Text is never made into sampled tokens.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agentrl.conversation import Conversation
from agentrl.types import Message, Role, system
from agentrl_endpoint.answers import Answer, AnsweredCall
from agentrl_endpoint.requests import ChatMessage, ChatRequest, Refused, check_top_p, temperature_of
from agentrl_endpoint.tools import Call, ToolFormat


@dataclass(frozen=True, slots=True)
class Said:
    """What is compared of a message: a program may give back the model's text without blanks around it."""

    role: Role
    texts: frozenset[str]
    calls: tuple[Call, ...] = ()
    answers: str | None = None

    def matches(self, other: "Said") -> bool:
        """Return whether `other` may be this message, given back."""
        same = (self.role, self.calls, self.answers) == (other.role, other.calls, other.answers)
        return same and bool(self.texts & other.texts)


@dataclass(frozen=True, slots=True)
class Point:
    """A point at which the model has spoken: the messages up to there, and where in the segments that is."""

    messages: tuple[Said, ...]
    tools: str
    segment: int
    length: int


class History:
    """The dialogues of one episode's program with the model."""

    def __init__(self, conversation: Conversation, form: ToolFormat, *, own_temperature: bool) -> None:
        """Take the conversation, and how the model writes the calls of tools."""
        self._conversation = conversation
        self._form = form
        self._native = form.native and conversation.shows_tools
        self._own_temperature = own_temperature
        self._points: list[Point] = []
        self._calls = 0

    async def ask(self, request: ChatRequest) -> Answer:
        """Let the model answer.

        Raises:
            Refused: the request cannot be answered as it is.
            AgentRLError: the conversation, or the engine, cannot go on.
        """
        run = self._conversation.sampling
        temperature = temperature_of(request, run.temperature, own=self._own_temperature)
        check_top_p(request, run.top_p)
        if request.messages[-1].role == "assistant":
            raise Refused("the last message is the assistant's; add one of the user or of a tool to answer")
        said = [_said(message) for message in request.messages]
        tools = json.dumps([each.model_dump() for each in request.tools])
        self._give(request, self._known(said, tools))
        stop = (*request.stop, *self._form.stops(request.tools))
        text = await self._conversation.ask(stop, request.max_tokens, temperature=temperature)
        return self._note(request, said, tools, text)

    def _known(self, said: Sequence[Said], tools: str) -> Point | None:
        """Return the latest of the longest dialogues that `said` goes on from."""
        found = [point for point in reversed(self._points) if _goes_on(point, said, tools)]
        return max(found, key=lambda point: len(point.messages), default=None)

    def _give(self, request: ChatRequest, known: Point | None) -> None:
        """Give the model what is new."""
        if known is None:
            messages, tools = self._opening(request)
            self._conversation.restart(*messages, tools=tools)
            return
        new = [
            self._message(message, request.messages) for message in request.messages[len(known.messages) :]
        ]
        tokens = self._conversation.segments[known.segment].token_ids[: known.length]
        self._conversation.restart(*new, after=tokens)

    def _opening(self, request: ChatRequest) -> tuple[list[Message], list[dict[str, Any]]]:
        """Return all messages, and the tools that the chat template is to show."""
        messages = [self._message(message, request.messages) for message in request.messages]
        if not request.tools:
            return messages, []
        if self._native:
            return messages, [each.model_dump(exclude_none=True) for each in request.tools]
        words = self._form.describe(request.tools)
        if messages[0].role == "system":
            return [system(f"{messages[0].content}\n\n{words}"), *messages[1:]], []
        return [system(words), *messages], []

    def _message(self, message: ChatMessage, dialogue: Sequence[ChatMessage]) -> Message:
        """Return a message as the chat template gets it."""
        if message.role == "tool":
            return self._result(message, dialogue)
        calls = [Call(call.function.name, call.function.arguments) for call in message.tool_calls or ()]
        if calls and self._native:
            return Message("assistant", message.text, {"tool_calls": _native_calls(message)})
        written = "\n".join(filter(None, (message.text, *map(self._form.write, calls))))
        return Message(_role(message), written)

    def _result(self, message: ChatMessage, dialogue: Sequence[ChatMessage]) -> Message:
        """Return what a tool has returned."""
        if not self._native:
            return self._form.result(message.text)
        calls = [call for each in dialogue for call in each.tool_calls or ()]
        name = next((call.function.name for call in calls if call.id == message.tool_call_id), None)
        more = {"tool_call_id": message.tool_call_id, "name": name}
        return Message("tool", message.text, {key: value for key, value in more.items() if value})

    def _note(self, request: ChatRequest, said: list[Said], tools: str, text: str) -> Answer:
        """Remember where the model has spoken, and return what it said."""
        content, whole = _without_stop(text, request.stop), text
        calls: list[Call] = []
        if request.tool_choice != "none" and request.tools:
            content, calls = self._form.read(content, request.tools)
            whole, _ = self._form.read(text, request.tools)
        shown = whole if request.include_stop_str_in_output else content
        texts = frozenset({content.strip(), whole.strip()})
        segments = self._conversation.segments
        here = Point(
            (*said, Said("assistant", texts, tuple(calls))),
            tools,
            len(segments) - 1,
            len(segments[-1].token_ids),
        )
        self._points.append(here)
        return self._answer(request, shown, calls)

    def _answer(self, request: ChatRequest, content: str, calls: Sequence[Call]) -> Answer:
        completion = self._conversation.completion
        assert completion is not None  # the model has just spoken
        given = len(self._conversation.segments[-1].token_ids) - len(completion.token_ids)
        pieces = (
            [self._conversation.decode([each]) for each in completion.token_ids] if request.logprobs else []
        )
        return Answer(request, content, [self._numbered(call) for call in calls], completion, given, pieces)

    def _numbered(self, call: Call) -> AnsweredCall:
        self._calls += 1
        # Nine letters and digits: some chat templates want just that.
        return AnsweredCall(f"call{self._calls:05d}", call)


def _goes_on(point: Point, said: Sequence[Said], tools: str) -> bool:
    """Return whether `said` is the dialogue up to `point`, and something more."""
    if point.tools != tools or len(point.messages) >= len(said):
        return False
    return all(known.matches(given) for known, given in zip(point.messages, said, strict=False))


def _said(message: ChatMessage) -> Said:
    calls = tuple(Call(each.function.name, each.function.arguments) for each in message.tool_calls or ())
    text = message.text.strip() if message.role == "assistant" else message.text
    return Said(_role(message), frozenset({text}), calls, message.tool_call_id)


def _role(message: ChatMessage) -> Role:
    return "system" if message.role == "developer" else message.role


def _native_calls(message: ChatMessage) -> list[dict[str, Any]]:
    """Return calls as chat templates want them: with arguments that are no text."""
    return [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.function.name, "arguments": json.loads(call.function.arguments)},
        }
        for call in message.tool_calls or ()
    ]


def _without_stop(text: str, stop: Sequence[str]) -> str:
    """Return `text` up to the first of the strings that the request wanted to stop at."""
    places = [text.index(each) for each in stop if each and each in text]
    return text[: min(places)] if places else text
