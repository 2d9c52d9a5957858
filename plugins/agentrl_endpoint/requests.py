"""What a program may ask: the body of a chat completion, checked.

What is trained is what was sampled, by the run's own rules. So what a request says about sampling is honoured
where that can be recorded, and refused, not passed over, where it would be something else.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

# Fields that change nothing about what is sampled here.
HARMLESS = {
    "metadata",
    "prompt_cache_key",
    "safety_identifier",
    "seed",
    "service_tier",
    "store",
    "user",
}
# Fields that ask for what happens anyway, if they have this value.
NEUTRAL: Mapping[str, object] = {
    "best_of": 1,
    "frequency_penalty": 0,
    "logit_bias": {},
    "modalities": ["text"],
    "n": 1,
    "parallel_tool_calls": True,
    "presence_penalty": 0,
    "response_format": {"type": "text"},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
}


class Refused(Exception):
    """A request cannot be answered as it is; the message says why, `code` names the kind."""

    def __init__(self, message: str, code: str = "invalid_request", status: int = 400) -> None:
        """Take what the program is told."""
        super().__init__(message)
        self.code = code
        self.status = status


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class FunctionCall(_Part):
    """A function by name, with its arguments as JSON."""

    name: str
    arguments: str = "{}"

    @field_validator("arguments")
    @classmethod
    def _object(cls, text: str) -> str:
        """Write all arguments in the same way, so that they can be compared."""
        value = json.loads(text or "{}")
        if not isinstance(value, dict):
            raise ValueError("the arguments of a call have to be a JSON object")
        return json.dumps(value, ensure_ascii=False)


class ToolCall(_Part):
    """A call of a tool, as the assistant has made it."""

    id: str = ""
    function: FunctionCall


class TextPart(_Part):
    """A piece of a text."""

    type: Literal["text"]
    text: str


class ChatMessage(_Part):
    """One message of a request."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """Return the content as one text."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class FunctionSchema(_Part):
    """A function that the model may call; `parameters` is a JSON schema."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)


class Tool(_Part):
    """A tool that the model may call."""

    type: Literal["function"] = "function"
    function: FunctionSchema


class StreamOptions(_Part):
    """How an answer is streamed."""

    include_usage: bool = False


class ChatRequest(BaseModel):
    """The body of a chat completion: what is honoured of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    messages: list[ChatMessage] = Field(min_length=1)
    model: str = "agentrl"
    tools: list[Tool] = []
    tool_choice: Literal["auto", "none"] = "auto"
    stop: list[str] = []
    include_stop_str_in_output: bool = False
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0)
    top_p: float | None = None
    logprobs: bool = False
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()


def read_request(body: object, ignored: Sequence[str]) -> ChatRequest:
    """Return a request's body as what it asks for; fields that are `ignored` count as left out.

    Raises:
        Refused: it is no chat completion, or asks for something that would not be trained as it was sampled.
    """
    if not isinstance(body, dict):
        raise Refused("the body of a request has to be a JSON object")
    fields = {name: value for name, value in body.items() if value is not None and name not in ignored}
    fields = {name: value for name, value in fields.items() if not _changes_nothing(name, value)}
    if "max_completion_tokens" in fields:
        fields["max_tokens"] = fields.pop("max_completion_tokens")
    if isinstance(fields.get("stop"), str):
        fields["stop"] = [fields["stop"]]
    _refuse_unknown(fields)
    try:
        return ChatRequest(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Refused(f"the request's {where}: {first['msg']}") from error


def _changes_nothing(name: str, value: object) -> bool:
    return name in HARMLESS or (name in NEUTRAL and value == NEUTRAL[name])


def _refuse_unknown(fields: Mapping[str, object]) -> None:
    """Refuse what would be sampled otherwise than the run samples.

    Raises:
        Refused: it names the first such field, and how to do without.
    """
    for name, value in fields.items():
        if name not in ChatRequest.model_fields or (name == "tool_choice" and value != "none"):
            raise refusal(name, value)


def refusal(name: str, value: object) -> Refused:
    """Return the answer to a field that cannot be honoured."""
    return Refused(
        f"{name}={value!r} cannot be honoured, for what is trained has to be what was sampled; leave it out, "
        f"or let it be passed over with --set agent.ignore=[{name}]"
    )


def temperature_of(request: ChatRequest, runs: float, *, own: bool) -> float | None:
    """Return the temperature that a request wants in place of the run's, None if it leaves that to the run.

    Raises:
        Refused: it may not have its own, or wants none that can be trained.
    """
    wanted = request.temperature
    if wanted is None or wanted == runs:
        return None
    if not own:
        raise Refused(
            f"temperature={wanted:g} is not the run's, {runs:g}; leave it out, set simulator.temperature, "
            "let it be passed over with --set agent.ignore=[temperature], or be honoured and trained with "
            "--set agent.own_temperature=true"
        )
    if wanted == 0:
        raise Refused("temperature=0 samples nothing that could be trained; ask for one above 0")
    return wanted


def check_top_p(request: ChatRequest, runs: float) -> None:
    """Refuse another nucleus than the run's.

    Raises:
        Refused: it is another.
    """
    if request.top_p is not None and request.top_p != runs:
        raise refusal("top_p", request.top_p)
