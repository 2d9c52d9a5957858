"""Tokens in, tokens out: what was sampled is what is trained, whatever the chat template does to history."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from agentrl import Conversation, Sampling, UsageError, user
from agentrl.activity import Activity
from agentrl.chat import ChatFormat
from agentrl.errors import ContextFull, TokenBudgetSpent
from agentrl.testing.engines import ByteTokenizer, ScriptedEngine
from agentrl.types import Completion


class ForgetfulTokenizer(ByteTokenizer):
    """Its template drops the thoughts of all turns but the last, as several models' templates do."""

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> Any:
        kept = [
            {**message, "content": message["content"].rpartition("</think>")[2]}
            if message["role"] == "assistant"
            else message
            for message in conversation
        ]
        return super().apply_chat_template(
            kept, tokenize=tokenize, add_generation_prompt=add_generation_prompt
        )


def converse(engine: ScriptedEngine, **limits: Any) -> Conversation:
    sampling = Sampling(max_tokens=limits.pop("max_new_tokens", 64))
    return Conversation(engine, ChatFormat(engine.tokenizer), sampling, "episode", **limits)


def test_every_sampled_token_is_recorded_where_it_was_sampled() -> None:
    engine = ScriptedEngine(["one", "two"])
    conversation = converse(engine)

    async def play() -> list[str]:
        conversation.say(user("a"))
        first = await conversation.ask()
        conversation.turn = 1
        conversation.say(user("b"))
        return [first, await conversation.ask()]

    assert asyncio.run(play()) == ["one", "two"]
    (segment,) = conversation.segments
    texts = [engine.tokenizer.decode(segment.token_ids[span.start : span.stop]) for span in segment.spans]
    assert texts == ["one<|end|>", "two<|end|>"]
    assert [span.turn for span in segment.spans] == [0, 1]


def test_the_engine_is_at_work_while_a_request_is_in_flight_even_if_it_only_waits() -> None:
    class Waiting(ScriptedEngine):
        async def generate(self, token_ids: Sequence[int], sampling: Sampling, session: str) -> Completion:
            now[0] += 3.0
            said = await super().generate(token_ids, sampling, session)
            now[0] += 1.0
            return said

    async def play() -> None:
        conversation.say(user("a"))
        now[0] += 10.0
        await conversation.ask()
        now[0] += 10.0

    now = [0.0]
    activity = Activity(clock=lambda: now[0])
    conversation = converse(Waiting(["one"]), at_work=activity)
    asyncio.run(play())
    assert activity.seconds == 4.0


def test_a_completion_that_new_weights_have_met_is_recorded_as_a_span_for_each_of_them() -> None:
    class Renewed(ScriptedEngine):
        async def generate(self, token_ids: Sequence[int], sampling: Sampling, session: str) -> Completion:
            said = await super().generate(token_ids, sampling, session)
            logprobs = [-float(place) for place in range(len(said.token_ids))]
            return replace(said, logprobs=logprobs, version=3, temperature=0.5, changes=((2, 4), (3, 6)))

    engine = Renewed(["four"])
    conversation = converse(engine)
    conversation.say(user("count"))
    asyncio.run(conversation.ask())
    (segment,) = conversation.segments
    start = len(engine.requests[0].token_ids)
    assert [(span.start - start, span.logprobs, span.version) for span in segment.spans] == [
        (0, [0.0, -1.0], 3),
        (2, [-2.0], 4),
        (3, [-3.0, -4.0], 6),
    ]
    assert {(span.turn, span.temperature) for span in segment.spans} == {(0, 0.5)}
    assert segment.spans[-1].stop == len(segment.token_ids)


def test_each_request_extends_the_tokens_of_the_one_before_though_the_template_rewrites_history() -> None:
    engine = ScriptedEngine(["<think>deep</think>left", "<think>deeper</think>right"], ForgetfulTokenizer())
    conversation = converse(engine)

    async def play() -> None:
        for observation in ("where?", "and now?"):
            conversation.say(user(observation))
            await conversation.ask()

    asyncio.run(play())
    (segment,) = conversation.segments
    first, second = engine.requests
    sampled = engine.tokenizer.encode("<think>deep</think>left<|end|>")
    assert second.token_ids[: len(first.token_ids) + len(sampled)] == first.token_ids + sampled
    assert segment.token_ids[: len(second.token_ids)] == second.token_ids
    assert "deep</think>" in engine.tokenizer.decode(second.token_ids)


def test_a_turn_that_ends_by_a_stop_string_is_closed_and_one_that_closed_itself_is_not_closed_twice() -> None:
    engine = ScriptedEngine(["find <go>", "done"])
    conversation = converse(engine)

    async def play() -> None:
        conversation.say(user("a"))
        await conversation.ask(stop=["<go>"])
        conversation.say(user("b"))
        await conversation.ask()
        conversation.say(user("c"))
        with pytest.raises(Exception, match="script"):
            await conversation.ask()

    asyncio.run(play())
    text = engine.tokenizer.decode(engine.requests[-1].token_ids)
    assert "find <go><|end|>\n<|user|>\nb<|end|>" in text
    assert "done<|end|>\n<|user|>\nc" in text
    first = conversation.segments[0].spans[0]
    assert (
        engine.tokenizer.decode(conversation.segments[0].token_ids[first.start : first.stop]) == "find <go>"
    )


def test_restart_begins_a_segment_and_keeps_what_was_sampled() -> None:
    engine = ScriptedEngine(["one", "two"])
    conversation = converse(engine)

    async def play() -> None:
        conversation.restart(user("a"))
        await conversation.ask()
        conversation.restart(user("summary"))
        await conversation.ask()

    asyncio.run(play())
    assert [segment.sampled for segment in conversation.segments] == [4, 4]
    assert engine.tokenizer.decode(conversation.segments[1].token_ids).startswith("<|user|>\nsummary")


def test_limits_end_the_conversation_with_their_own_errors() -> None:
    async def ask(engine: ScriptedEngine, **limits: Any) -> Conversation:
        conversation = converse(engine, **limits)
        conversation.say(user("a"))
        await conversation.ask()
        conversation.say(user("b" * 20))
        await conversation.ask()
        return conversation

    with pytest.raises(TokenBudgetSpent):
        asyncio.run(ask(ScriptedEngine(["long answer"] * 2), max_tokens=5))
    with pytest.raises(ContextFull):
        asyncio.run(ask(ScriptedEngine(["answer"] * 2, context_length=40)))
    conversation = converse(ScriptedEngine(["x"], context_length=10))
    conversation.say(user("this is too long"))
    with pytest.raises(UsageError, match="first prompt has 22 tokens but the model's context holds 10"):
        asyncio.run(conversation.ask())


def test_asking_twice_without_saying_anything_is_refused() -> None:
    async def play() -> None:
        conversation = converse(ScriptedEngine(["a", "b"]))
        conversation.say(user("x"))
        await conversation.ask()
        await conversation.ask()

    with pytest.raises(UsageError, match=r"call conversation\.say first"):
        asyncio.run(play())


def test_a_template_without_the_last_turn_is_refused() -> None:
    class Silent(ByteTokenizer):
        def apply_chat_template(
            self, conversation: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
        ) -> Any:
            return "".join(m["content"] for m in conversation if m["role"] == "user")

    with pytest.raises(UsageError, match="leaves out the assistant's last turn"):
        ChatFormat(Silent()).continuation([user("b")], last_sampled=1)


def test_a_new_segment_may_begin_with_the_tokens_of_an_earlier_one() -> None:
    engine = ScriptedEngine(["one", "two", "three", "four"])
    conversation = converse(engine)

    async def play() -> None:
        conversation.say(user("a"))
        await conversation.ask()
        first = list(conversation.segments[0].token_ids)
        conversation.restart(user("b"), after=first)
        await conversation.ask()
        assert len(conversation.segments) == 1, "nothing came between, so the segment goes on"
        conversation.restart(user("c"), after=first)
        await conversation.ask()
        conversation.say(user("d"))
        await conversation.ask()
        assert conversation.segments[1].token_ids[: len(first)] == first

    asyncio.run(play())
    assert [len(segment.spans) for segment in conversation.segments] == [2, 2]
    assert engine.tokenizer.decode(conversation.segments[1].token_ids) == (
        "<|user|>\na<|end|>\n<|assistant|>\none<|end|>\n<|user|>\nc<|end|>\n<|assistant|>\nthree<|end|>\n"
        "<|user|>\nd<|end|>\n<|assistant|>\nfour<|end|>"
    )


def test_an_ask_that_was_given_up_leaves_no_tokens_behind() -> None:
    class Stuck(ScriptedEngine):
        async def generate(self, token_ids: Sequence[int], sampling: Sampling, session: str) -> Completion:
            if len(self.requests) == 1:
                self.requests.append(self.requests[0])
                await asyncio.sleep(3600)
            return await super().generate(token_ids, sampling, session)

    engine = Stuck(["one", "two"])
    conversation = converse(engine)

    async def play() -> None:
        conversation.say(user("a"))
        await conversation.ask()
        conversation.restart(user("b"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(conversation.ask(), 0.05)
        assert len(conversation.segments) == 1
        await conversation.ask()

    asyncio.run(play())
    assert [engine.tokenizer.decode(segment.token_ids) for segment in conversation.segments] == [
        "<|user|>\na<|end|>\n<|assistant|>\none<|end|>",
        "<|user|>\nb<|end|>\n<|assistant|>\ntwo<|end|>",
    ]
    assert conversation.completion is not None
    assert conversation.completion.token_ids == engine.tokenizer.encode("two<|end|>")


def test_a_temperature_of_its_own_is_for_one_turn() -> None:
    engine = ScriptedEngine(["one", "two"])
    conversation = converse(engine)

    async def play() -> None:
        for temperature in (0.5, None):
            conversation.say(user("a"))
            await conversation.ask(temperature=temperature)

    asyncio.run(play())
    assert [request.sampling.temperature for request in engine.requests] == [0.5, 1.0]


def test_tools_are_shown_by_templates_that_know_them() -> None:
    class Tooled(ByteTokenizer):
        def apply_chat_template(self, conversation: list[dict[str, Any]], **options: Any) -> Any:
            names = [tool["function"]["name"] for tool in options.pop("tools", ())]
            return "".join(f"[{name}]" for name in names) + super().apply_chat_template(
                conversation, **options
            )

    assert not ChatFormat(ByteTokenizer()).shows_tools
    chat = ChatFormat(Tooled())
    assert chat.shows_tools
    ids = chat.opening([user("a")], [{"type": "function", "function": {"name": "look"}}])
    assert chat.tokenizer.decode(ids) == "[look]<|user|>\na<|end|>\n<|assistant|>\n"
