"""The engine and the tokenizer that stand in for a model in tests, and the kit's pytest fixtures."""

import asyncio

import pytest

from agentrl import AgentRLError, Completion, Conversation, Sampling, system, user
from agentrl.chat import ChatFormat
from agentrl.testing import ByteTokenizer, ScriptedEngine


def generate(
    engine: ScriptedEngine, context: str = "?", session: str = "s", **sampling: object
) -> Completion:
    ids = engine.tokenizer.encode(context, add_special_tokens=False)
    return asyncio.run(engine.generate(ids, Sampling(**sampling), session))  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "hello", "n\u00e4\u00efve \U0001f40d\n", "<|user|>\nhi<|end|>\n"])
def test_bytes_become_text_again(text: str) -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_are_one_token_and_can_be_left_out() -> None:
    tokenizer = ByteTokenizer()
    ids = tokenizer.encode("hi<|end|>")
    assert ids == [104, 105, tokenizer.eos_token_id]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "hi"


def test_text_that_is_no_unicode_costs_a_character_and_no_exception() -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a?b"
    assert tokenizer.decode([0xFF]) == "\ufffd"


def test_the_chat_template_renders_roles_and_asks_for_an_answer() -> None:
    chat = [{"role": "user", "content": "hi"}]
    tokenizer = ByteTokenizer()
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<|user|>\nhi<|end|>\n<|assistant|>\n"
    ids = tokenizer.apply_chat_template(chat, tokenize=True, add_generation_prompt=True)
    assert ids == tokenizer.encode(text)


def test_each_session_hears_the_script_from_its_beginning() -> None:
    engine = ScriptedEngine(["one", "two"])
    said = [engine.tokenizer.decode(generate(engine, session=name).token_ids) for name in "aba"]
    assert said == ["one<|end|>", "one<|end|>", "two<|end|>"]
    with pytest.raises(AgentRLError, match="the script of 2 texts is over, but session 'a' asks for another"):
        generate(engine, session="a")
    engine.release("a")
    assert len(generate(engine, session="a").token_ids) == 4


def test_a_function_answers_the_whole_context() -> None:
    engine = ScriptedEngine(lambda context: context.upper())
    assert engine.tokenizer.decode(generate(engine, "and so on").token_ids[:-1]) == "AND SO ON"


def test_stop_strings_and_the_token_limit_end_a_completion_as_in_a_real_engine() -> None:
    engine = ScriptedEngine(lambda context: "x</a>y</b>")
    text = engine.tokenizer.decode
    stopped = generate(engine, stop=("</b>", "</a>"))
    assert (text(stopped.token_ids), stopped.stop) == ("x</a>", "stop")
    cut = generate(engine, max_tokens=3)
    assert (text(cut.token_ids), cut.stop, cut.logprobs) == ("x</", "length", [0.0] * 3)
    whole = generate(engine)
    assert (text(whole.token_ids), whole.stop) == ("x</a>y</b><|end|>", "stop")


def test_completions_tell_the_version_of_the_weights() -> None:
    engine = ScriptedEngine(["a"])
    asyncio.run(engine.load_weights({}, 7))
    assert generate(engine).version == 7


def test_it_plays_its_part_in_a_conversation() -> None:
    engine = ScriptedEngine(["hello", "bye"])

    async def talk() -> list[str]:
        conversation = Conversation(engine, ChatFormat(engine.tokenizer), Sampling(), "s")
        conversation.say(system("Be brief."), user("Hi!"))
        first = await conversation.ask()
        conversation.say(user("Bye!"))
        return [first, await conversation.ask()]

    assert asyncio.run(talk()) == ["hello", "bye"]
    assert engine.tokenizer.decode(engine.requests[1].token_ids) == (
        "<|system|>\nBe brief.<|end|>\n<|user|>\nHi!<|end|>\n<|assistant|>\nhello<|end|>\n"
        "<|user|>\nBye!<|end|>\n<|assistant|>\n"
    )
