"""An agent of somebody who knows the official client, and no agentrl: a loop that searches with a tool.

agentrl run with_openai.yaml
"""

import json
from functools import cache
from typing import Any

from openai import AsyncOpenAI

SEARCH: Any = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Look something up in the encyclopedia.",
        "parameters": {
            "type": "object",
            "properties": {"query": {"type": "string"}},
            "required": ["query"],
        },
    },
}


@cache
def shared_client() -> AsyncOpenAI:
    """Return a client that holds the connections of all episodes; one of its own for each would be slower."""
    return AsyncOpenAI(api_key="that of the episode", max_retries=0)


async def play(observation: str, episode: Any) -> None:
    """Play an episode: search as often as the model wants to, then answer; go on if the env does."""
    client = shared_client().with_options(base_url=episode.base_url, api_key=episode.api_key)
    messages: list[Any] = [
        {"role": "system", "content": "Answer the question inside <answer> and </answer>."},
        {"role": "user", "content": observation},
    ]
    while True:
        done = await client.chat.completions.create(
            model=episode.model, messages=messages, tools=[SEARCH], stop=["</answer>"]
        )
        said = done.choices[0].message
        messages.append(said.model_dump(exclude_none=True))
        if not said.tool_calls:
            shown = await episode.step(f"{said.content}</answer>")
            messages.append({"role": "user", "content": shown})
        for call in said.tool_calls or ():
            query = json.loads(call.function.arguments)["query"]
            found = await episode.step(f"<search> {query}</search>")
            messages.append({"role": "tool", "tool_call_id": call.id, "content": found})
