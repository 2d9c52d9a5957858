"""The built-in model for envs whose actions are programs: its words, its drills, and what it can do."""

import random
import re
from functools import cache
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from agentrl.plugins import make
from agentrl_tiny import Tiny, TinyCode
from agentrl_tiny.demonstrations import encode
from agentrl_tiny.errands import Errands
from agentrl_tiny.tokenizer import build_tokenizer, code_words, group
from agentrl_tiny.train_code import fluency, grow, teach
from agentrl_tiny.vocabulary import env_words

FOLDER = TinyCode().path()


@cache
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(FOLDER)


def test_the_shipped_tokenizer_is_the_one_the_script_builds_and_begins_with_that_of_tiny() -> None:
    built = build_tokenizer(env_words(make("env", "deepsearch")), code_words())
    assert built.get_vocab() == tokenizer().get_vocab()
    older = AutoTokenizer.from_pretrained(Tiny().path()).get_vocab()
    assert {word: tokenizer().get_vocab()[word] for word in older} == older


def test_code_has_about_one_token_a_word_or_mark() -> None:
    text = '```python\nvenmo_token = apis.venmo.login(username=me["email"])["access_token"]\n```'
    ids = tokenizer().encode(text, add_special_tokens=False)
    assert tokenizer().decode(ids) == text
    assert len(ids) == len(re.findall(r"[a-z]+|[^a-z\s]+|\n", text.replace('="', '=" ').replace(" = ", "=")))


def test_every_value_of_an_errand_stands_in_what_was_asked() -> None:
    errands = Errands(random.Random(0))
    for _ in range(200):
        dialogue = errands.dialogue()
        request = dialogue[0][0].partition("\n")[2]
        assert dialogue[-1][1].startswith("```python\napis.")
        arguments = re.findall(r'=("[^"]*"|\d+)', dialogue[-1][1])
        assert arguments
        assert all(value.strip('"') in request for value in arguments)


def test_errands_are_of_listed_words_and_differ_with_the_seed() -> None:
    assert Errands(random.Random(1)).dialogue() == Errands(random.Random(1)).dialogue()
    assert Errands(random.Random(1)).dialogue() != Errands(random.Random(2)).dialogue()
    ids, learnt = encode(tokenizer(), Errands(random.Random(3)).dialogue())
    assert 0 < sum(learnt) < len(ids)
    assert {"venmo", "access"} <= set(group("words"))


def test_a_grown_model_says_of_old_words_what_it_said_before() -> None:
    before = AutoModelForCausalLM.from_pretrained(Tiny().path())
    grown = AutoModelForCausalLM.from_pretrained(Tiny().path())
    assert grow(grown, len(tokenizer())) == before.config.vocab_size
    ids = torch.arange(5, 45)[None]
    with torch.no_grad():
        old, new = before(ids).logits, grown(ids).logits
    assert new.shape[-1] == len(tokenizer())
    assert torch.equal(new[..., : old.shape[-1]], old)


def test_the_drills_teach_it() -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(Tiny().path())
    stage = teach(model, tokenizer(), grow(model, len(tokenizer())), updates=6, seed=0)
    assert stage.updates == 6
    assert 0 < stage.loss < 20


def test_it_passes_on_what_it_was_told() -> None:
    model = AutoModelForCausalLM.from_pretrained(FOLDER)
    assert fluency(model, tokenizer(), seed=1, errands=128) > 0.9
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 6_000_000
    assert (FOLDER / "README.md").read_text(encoding="utf-8").startswith("---\nlicense: apache-2.0\n")
