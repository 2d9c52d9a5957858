"""What a program is told: a chat completion, whole or as a stream of pieces."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from agentrl.types import Completion
from agentrl_endpoint.requests import ChatRequest
from agentrl_endpoint.tools import Call

# What OpenAI's API says of tokens that are next to impossible, and we of those that nobody has sampled.
UNLIKELY = -9999.0


@dataclass(frozen=True, slots=True)
class AnsweredCall:
    """A call of a tool with the id that its result is to name."""

    id: str
    call: Call

    def body(self) -> dict[str, Any]:
        """Return the call as the API writes it."""
        function = {"name": self.call.name, "arguments": self.call.arguments}
        return {"id": self.id, "type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model has said to a request.

    Attributes:
        request: what was asked.
        content: the text, without calls.
        calls: of tools.
        completion: the tokens.
        given: how many tokens stood before them.
        pieces: the text of each token, where log-probabilities are wanted.
    """

    request: ChatRequest
    content: str
    calls: Sequence[AnsweredCall]
    completion: Completion
    given: int
    pieces: Sequence[str]

    @property
    def finish(self) -> str:
        """Return why the turn ended, in the API's words."""
        return "tool_calls" if self.calls else self.completion.stop

    def body(self, name: str, created: int) -> dict[str, Any]:
        """Return the whole answer."""
        message: dict[str, Any] = {"role": "assistant", "content": self.content or None}
        if self.calls:
            message["tool_calls"] = [call.body() for call in self.calls]
        elif not self.content:
            message["content"] = ""
        choice = {"index": 0, "message": message, "finish_reason": self.finish, "logprobs": self._logprobs()}
        head = self._head(name, created, "chat.completion")
        return {**head, "choices": [choice], "usage": self._usage()}

    def stream(self, name: str, created: int) -> Iterator[str]:
        """Yield the answer as server-sent events."""
        head = self._head(name, created, "chat.completion.chunk")
        for choice in self._choices():
            yield _event({**head, "choices": [choice]})
        if self.request.stream_options.include_usage:
            yield _event({**head, "choices": [], "usage": self._usage()})
        yield "data: [DONE]\n\n"

    def _choices(self) -> Iterator[dict[str, Any]]:
        """Yield what is new in each event: the text word by word, then each call, then why it ended."""
        yield _choice({"role": "assistant", "content": ""})
        logprobs = self._logprobs()
        for word in re.findall(r"\s*\S+\s*|\s+", self.content):
            yield _choice({"content": word}, logprobs)
            logprobs = None
        for index, call in enumerate(self.calls):
            yield _choice({"tool_calls": [{"index": index, **call.body()}]}, logprobs)
            logprobs = None
        yield _choice({}, logprobs, self.finish)

    def _head(self, name: str, created: int, kind: str) -> dict[str, Any]:
        return {"id": name, "object": kind, "created": created, "model": self.request.model}

    def _usage(self) -> dict[str, int]:
        sampled = len(self.completion.token_ids)
        return {
            "prompt_tokens": self.given,
            "completion_tokens": sampled,
            "total_tokens": self.given + sampled,
        }

    def _logprobs(self) -> dict[str, Any] | None:
        """Return the log-probabilities of all sampled tokens, that of the end of the turn included."""
        if not self.request.logprobs:
            return None
        pairs = zip(self.pieces, self.completion.logprobs, strict=True)
        return {"content": [_token(piece, logprob) for piece, logprob in pairs], "refusal": None}


def _token(piece: str, logprob: float) -> dict[str, Any]:
    known = UNLIKELY if math.isnan(logprob) else logprob
    return {"token": piece, "logprob": known, "bytes": list(piece.encode()), "top_logprobs": []}


def _choice(
    delta: dict[str, Any], logprobs: dict[str, Any] | None = None, finish: str | None = None
) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": logprobs}


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body)}\n\n"
