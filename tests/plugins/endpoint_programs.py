"""Programs as users write them, for the tests of `endpoint`: they know the official client, not agentrl."""

import asyncio
import json
import subprocess
import sys
import time
from typing import Any

from openai import APITimeoutError, AsyncOpenAI, BadRequestError, OpenAI

SEARCH = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Look something up.",
        "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
    },
}


def client_of(episode: Any, **options: Any) -> OpenAI:
    return OpenAI(base_url=episode.base_url, api_key=episode.api_key, max_retries=0, **options)


def async_client_of(episode: Any) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=episode.base_url, api_key=episode.api_key, max_retries=0)


def reply(observation: str, episode: Any, **options: Any) -> str:
    """Answer one observation, and remember nothing."""
    messages: Any = [{"role": "user", "content": observation}]
    answer = client_of(episode).chat.completions.create(model=episode.model, messages=messages, **options)
    return answer.choices[0].message.content or ""


async def dialogue(observation: str, episode: Any) -> str:
    """Play the whole episode in one dialogue; every other answer is streamed."""
    client = async_client_of(episode)
    messages: Any = [{"role": "system", "content": "Play."}]
    streamed = False
    while True:
        messages.append({"role": "user", "content": observation})
        text = await (stream if streamed else whole)(client, messages)
        messages.append({"role": "assistant", "content": text})
        observation = await episode.step(text)
        streamed = not streamed


async def whole(client: AsyncOpenAI, messages: Any) -> str:
    answer = await client.chat.completions.create(model="any", messages=messages)
    return answer.choices[0].message.content or ""


async def stream(client: AsyncOpenAI, messages: Any) -> str:
    options: Any = {"stream": True, "stream_options": {"include_usage": True}}
    pieces = await client.chat.completions.create(model="any", messages=messages, **options)
    text, usage = "", None
    async for piece in pieces:
        text += (piece.choices[0].delta.content or "") if piece.choices else ""
        usage = piece.usage or usage
    assert usage is not None
    return text


async def forgetful(observation: str, episode: Any) -> str:
    """Keep the last exchange only, so that every history but the first is a rewritten one."""
    client = async_client_of(episode)
    messages: Any = []
    while True:
        messages = [*messages[-2:], {"role": "user", "content": observation}]
        text = await whole(client, messages)
        messages.append({"role": "assistant", "content": text})
        observation = await episode.step(text)


async def manager(observation: str, episode: Any) -> str:
    """Have two dialogues at once, asked in turn and together, and go back in one of them."""
    client = async_client_of(episode)
    first: Any = [{"role": "user", "content": f"a {observation}"}]
    second: Any = [{"role": "user", "content": f"b {observation}"}]
    for _ in range(2):
        texts = await asyncio.gather(whole(client, first), whole(client, second))
        for messages, text in zip((first, second), texts, strict=True):
            messages += [{"role": "assistant", "content": text.strip()}, {"role": "user", "content": "more"}]
    return await whole(client, first[:3])


def search(observation: str, episode: Any) -> str:
    """Answer with a tool that searches, by the client's own loop."""
    client = client_of(episode)
    messages: Any = [{"role": "user", "content": observation}]
    options: Any = {"tools": [SEARCH], "stop": ["</answer>"]}
    while True:
        answer = client.chat.completions.create(model="any", messages=messages, **options).choices[0].message
        messages.append(answer.model_dump(exclude_none=True))
        if not answer.tool_calls:
            return f"{answer.content}</answer>"
        for call in answer.tool_calls:
            found = episode.step(f"<search>{json.loads(call.function.arguments)['query']}</search>")
            messages.append({"role": "tool", "tool_call_id": call.id, "content": found})


def streamed_search(observation: str, episode: Any) -> str:
    """Answer with a tool whose calls come in pieces, and say what they were."""
    messages: Any = [{"role": "user", "content": observation}]
    options: Any = {"tools": [SEARCH], "stream": True, "logprobs": True}
    text, calls, tokens, ends = "", [], 0, []
    for piece in client_of(episode).chat.completions.create(model="any", messages=messages, **options):
        choice = piece.choices[0]
        text += choice.delta.content or ""
        tokens += len(choice.logprobs.content or ()) if choice.logprobs else 0
        calls += [
            [call.id, call.function.name, call.function.arguments] for call in choice.delta.tool_calls or ()
        ]
        ends += [choice.finish_reason] if choice.finish_reason else []
    return json.dumps({"text": text, "calls": calls, "tokens": tokens, "ends": ends})


def asks(**options: Any) -> Any:
    """Return a program that asks one thing, with options, and plays what it was told, error or not."""

    def program(observation: str, episode: Any) -> str:
        options.setdefault("messages", [{"role": "user", "content": observation}])
        try:
            answer = client_of(episode).chat.completions.create(model="any", **options)
        except BadRequestError:
            return "something else"
        return answer.model_dump_json()

    return program


several = asks(n=3)
constrained = asks(response_format={"type": "json_object"})
forced = asks(tools=[SEARCH], tool_choice="required")
cold = asks(temperature=0.25)
greedy = asks(temperature=0)
narrow = asks(top_p=0.5)
pictured = asks(
    messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
)
its_own_last_word = asks(messages=[{"role": "assistant", "content": "well"}])
unknown = asks(extra_body={"guided_regex": "x"})
measured = asks(logprobs=True, max_completion_tokens=4)
in_parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
parts = asks(messages=[{"role": "developer", "content": "Be."}, {"role": "user", "content": in_parts}])


async def falls_back(observation: str, episode: Any) -> str:
    """Ask for too much first, and again without it."""
    client = async_client_of(episode)
    messages: Any = [{"role": "user", "content": observation}]
    try:
        await client.chat.completions.create(model="any", messages=messages, n=2)
    except BadRequestError:
        return await whole(client, messages)
    raise AssertionError("two answers were given")


def crashing(observation: str, episode: Any) -> str:
    reply(observation, episode)
    raise KeyError("no such thing")


def exiting(observation: str, episode: Any) -> str:
    sys.exit(f"no more of {observation}")


async def hanging(observation: str, episode: Any) -> str:
    await asyncio.sleep(3600)
    return "never"


async def blocking(observation: str, episode: Any) -> str:
    time.sleep(2)
    return "too late"


def silent(observation: str, episode: Any) -> str:
    return "tick"


async def stepping_silently(observation: str, episode: Any) -> str:
    while True:
        await episode.step("tick")


def wordless(observation: str, episode: Any) -> Any:
    reply(observation, episode)


async def wrong_key(observation: str, episode: Any) -> str:
    client = AsyncOpenAI(base_url=episode.base_url, api_key="guessed", max_retries=0)
    return await whole(client, [{"role": "user", "content": observation}])


async def wrong_path(observation: str, episode: Any) -> str:
    answer = await async_client_of(episode).responses.create(model="any", input=observation)
    return answer.output_text


def lists_models(observation: str, episode: Any) -> str:
    reply(observation, episode)
    return " ".join(model.id for model in client_of(episode).models.list())


async def plain_client_in_async_code(observation: str, episode: Any) -> str:
    return reply(observation, episode)


async def steps_together(observation: str, episode: Any) -> str:
    """Act twice at once, as libraries do that call tools in parallel."""
    await whole(async_client_of(episode), [{"role": "user", "content": observation}])
    seen = await asyncio.gather(episode.step("one"), episode.step("two"))
    return " / ".join(seen)


async def leaves_a_child(observation: str, episode: Any) -> str:
    """Start a process, and end it when cancelled."""
    await whole(async_client_of(episode), [{"role": "user", "content": observation}])
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    try:
        return await episode.step(str(child.pid))
    finally:
        child.kill()
        child.wait()


async def impatient(observation: str, episode: Any) -> str:
    """Hang up after half a second, and ask again."""
    client = async_client_of(episode)
    messages: Any = [{"role": "user", "content": observation}]
    try:
        await client.with_options(timeout=0.5).chat.completions.create(model="any", messages=messages)
    except APITimeoutError:
        return await whole(client, messages)
    raise AssertionError("it was answered")
