"""The built-in model: its tokenizer, its chat format, and that it plays, but not too well."""

import json
import subprocess
import sys
from functools import cache
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from agentrl.chat import ChatFormat
from agentrl.plugins import make
from agentrl.types import system, tool, user
from agentrl_tiny import Tiny
from agentrl_tiny.play import success_rate
from agentrl_tiny.tokenizer import TAGS, build_tokenizer

FOLDER = Tiny().path()


@cache
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(FOLDER)


@cache
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(FOLDER)


def pieces(text: str) -> list[str]:
    ids = tokenizer().encode(text, add_special_tokens=False)
    return [tokenizer().decode([number]) for number in ids]


@settings(deadline=None, max_examples=300)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_encoding(text: str) -> None:
    ids = tokenizer().encode(text, add_special_tokens=False)
    assert tokenizer().decode(ids) == text


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.sampled_from([*TAGS, " Ada", " Brook", ".", "\n", "  ", "Doc", " 1", "(", "é", " x"])).map(
        "".join
    )
)
def test_tags_survive_and_are_not_special(text: str) -> None:
    ids = tokenizer().encode(text, add_special_tokens=False)
    assert tokenizer().decode(ids, skip_special_tokens=True) == text


def test_the_words_of_the_encyclopedia_are_one_token_each() -> None:
    env: Any = make("env", "deepsearch")
    for person in (*env.people("train")[::97], *env.people("test")[::97]):
        for relation in env.relations:
            text = f" {person} {relation} {person}."
            assert pieces(text) == [*(f" {word}" for word in text.removesuffix(".").split()), "."]


def test_what_the_env_and_agent_write_has_about_one_token_a_word() -> None:
    assert pieces("Question: Who is the rival of the mentor of Ada Brook?") == [
        "Question", ":", " Who", " is", " the", " rival", " of", " the", " mentor", " of",
        " Ada", " Brook", "?",
    ]  # fmt: skip
    assert pieces("<information>Doc 1(Title: Ada Brook) Ada") == [
        "<information>", "Doc", " 1", "(", "Title", ":", " Ada", " Brook", ")", " Ada",
    ]  # fmt: skip
    assert pieces("<think> Ada B") == ["<think>", " Ada", " ", "B"]
    for text in ("No searches left. Answer now.", "No documents match."):
        assert len(pieces(text)) <= len(text.split()) + text.count(".")


def test_the_chat_template_writes_turns_and_leaves_out_system_messages() -> None:
    chat = [{"role": role, "content": role[0]} for role in ("system", "user", "assistant", "tool")]
    text = tokenizer().apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<|user|>u<|end|><|assistant|>a<|end|><|tool|>t<|end|><|assistant|>"
    assert tokenizer().decode([tokenizer().eos_token_id]) == "<|end|>"


def test_a_conversation_is_continued_token_by_token() -> None:
    chat = ChatFormat(tokenizer())
    opening = chat.opening([system("ignored"), user("Question: Who?")])
    assert tokenizer().decode(opening) == "<|user|>Question: Who?<|end|><|assistant|>"
    for said in (" Ada</search>", " Ada</search><|end|>"):
        last = tokenizer().encode(said, add_special_tokens=False)[-1]
        end = "" if said.endswith("<|end|>") else "<|end|>"
        assert (
            tokenizer().decode(chat.continuation([tool("x")], last)) == f"{end}<|tool|>x<|end|><|assistant|>"
        )


def test_the_shipped_tokenizer_is_the_one_the_script_builds() -> None:
    from agentrl_tiny.train import env_words

    built = build_tokenizer(env_words(make("env", "deepsearch")))
    assert built.get_vocab() == tokenizer().get_vocab()
    assert built.chat_template == tokenizer().chat_template


def test_it_is_small_and_complete() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 5_000_000
    assert model().dtype == torch.float32
    assert model().config.vocab_size == len(tokenizer())
    assert model().generation_config.eos_token_id == tokenizer().eos_token_id
    config = json.loads((FOLDER / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert "| copying drills |" in card


def test_it_succeeds_on_unseen_worlds_often_enough_to_learn_and_not_yet_often() -> None:
    env = make("env", "deepsearch")
    assert 0.25 < success_rate(model(), tokenizer(), env, env.tasks("test")[2000:2128], seed=3) < 0.5


def test_the_plugin_needs_no_torch_until_the_model_is_loaded() -> None:
    plugins = "agentrl_tiny, agentrl_deepsearch, agentrl_search"
    done = subprocess.run(
        [sys.executable, "-c", f"import {plugins}, sys; print(*sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert not {"torch", "transformers", "numpy", "bm25s"} & set(done.stdout.split())
