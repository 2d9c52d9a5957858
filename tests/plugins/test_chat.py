"""The agent `chat`, on an engine that says what the test tells it to say."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from agentrl import Sampling
from agentrl.chat import ChatFormat
from agentrl.conversation import Conversation
from agentrl.errors import UsageError
from agentrl.testing import ByteTokenizer, ScriptedEngine, check_agent
from agentrl.types import Action, Observation
from agentrl_chat import Chat

LOOK = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
CALL = '<tool_call>{"name": "look", "arguments": {}}</tool_call>'


class Tooled(ByteTokenizer):
    """Has a chat template that names tools."""

    def apply_chat_template(self, conversation: list[dict[str, Any]], **options: Any) -> Any:
        names = [tool["function"]["name"] for tool in options.pop("tools", ())]
        return "".join(f"[{name}]" for name in names) + super().apply_chat_template(conversation, **options)


def act(
    config: Chat.Config,
    says: Sequence[str],
    observations: Sequence[str],
    tools: Sequence[Mapping[str, Any]] = (),
    tokenizer: ByteTokenizer | None = None,
) -> tuple[list[Action], str]:
    """Return the actions, and the text of the tokens that went to and fro."""
    engine, agent = ScriptedEngine(says, tokenizer), Chat(config)
    sampling = Sampling(max_tokens=200)
    conversation = Conversation(engine, ChatFormat(engine.tokenizer), sampling, "episode", tools=tools)

    async def play() -> list[Action]:
        return [await agent.act(Observation(text), conversation) for text in observations]

    actions = asyncio.run(play())
    (segment,) = conversation.segments
    return actions, engine.tokenizer.decode(segment.token_ids, skip_special_tokens=False)


def test_it_passes_on_what_is_shown_and_said() -> None:
    config = Chat.Config(system="Play.", stop=("!",))
    actions, text = act(config, [" go north! or south", "wait"], ["a", "b"])
    assert [action.text for action in actions] == ["go north!", "wait"]
    assert text.startswith(
        "<|system|>\nPlay.<|end|>\n<|user|>\na<|end|>\n<|assistant|>\n go north!<|end|>\n<|user|>\nb"
    )
    assert text.count("Play.") == 1


def test_tools_are_shown_once_and_answered_as_tools() -> None:
    config = Chat.Config(system="Play.", tools=True)
    actions, text = act(config, [CALL, "wait"], ["a", "b"], [LOOK], Tooled())
    assert actions[0].text == CALL
    assert text.startswith(
        f"[look]<|system|>\nPlay.<|end|>\n<|user|>\na<|end|>\n<|assistant|>\n{CALL}<|end|>\n<|tool|>\nb<|end|>"
    )
    assert text.count("[look]") == 1


def test_tools_that_an_env_has_are_shown_to_nobody_who_did_not_ask() -> None:
    _, text = act(Chat.Config(), [CALL, "wait"], ["a", "b"], [LOOK], Tooled())
    assert text.startswith("<|user|>\na<|end|>")
    assert "<|user|>\nb<|end|>" in text


def test_tools_that_cannot_be_shown_are_an_error() -> None:
    with pytest.raises(UsageError, match=r"this env has no tools to show: leave agent\.tools out"):
        act(Chat.Config(tools=True), ["x"], ["a"], [], Tooled())
    with pytest.raises(UsageError, match="chat template shows no tools: leave"):
        act(Chat.Config(tools=True), ["x"], ["a"], [LOOK])


def test_it_keeps_the_rules_of_agents() -> None:
    check_agent(Chat, ["go north"])
