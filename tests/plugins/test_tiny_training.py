"""How the built-in model is made: drills, demonstrations, and a training run cut short."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from agentrl.plugins import make
from agentrl_tiny import train
from agentrl_tiny.card import Stage
from agentrl_tiny.demonstrations import batch, encode
from agentrl_tiny.drills import Drill, drill, entries, facts
from agentrl_tiny.tokenizer import build_tokenizer
from agentrl_tiny.vocabulary import env_words, words_of


@pytest.fixture(scope="module")
def env() -> Any:
    return make("env", "deepsearch")


@pytest.fixture(scope="module")
def tokenizer(env: Any) -> Any:
    return build_tokenizer(env_words(env))


@pytest.mark.parametrize(("make_table", "key"), [(facts, 3), (entries, 1)])
def test_every_row_of_a_drill_table_has_a_key_of_its_own(
    env: Any, tokenizer: Any, make_table: Any, key: int
) -> None:
    words = words_of(tokenizer, env)
    for seed in range(20):
        table = make_table(random.Random(seed), words, 12)
        assert len({tuple(row[:key]) for row in table}) == 12


def test_everything_a_drill_asks_for_stands_before_it(env: Any, tokenizer: Any) -> None:
    words = words_of(tokenizer, env)
    for seed in range(10):
        ids, mask = drill(random.Random(seed), words, Drill(rows=(4,), tokens=96, batch=3))
        for row, learnt in zip(ids.tolist(), mask.tolist(), strict=True):
            # A target follows its key, or its key and the value before it, as it did earlier in the row.
            for place in [place for place, wanted in enumerate(learnt) if wanted]:
                before = row[place - 1 : place + 1]
                assert any(row[at : at + 2] == before for at in range(place - 2))


def test_drills_never_show_a_person_of_the_dev_or_test_split(env: Any, tokenizer: Any) -> None:
    words = words_of(tokenizer, env)
    shown = {"".join(tokenizer.decode(list(pair))).strip() for pair in words.pairs}
    assert shown == set(env.people("train"))
    assert not shown & {*env.people("dev"), *env.people("test")}


def test_dialogues_are_tokenised_as_the_chat_template_writes_them(tokenizer: Any) -> None:
    turns = [
        ("Question: Who?", "<search> Ada Brook</search>"),
        ("<information>x</information>", "<answer> Dan</answer>"),
    ]
    ids, expert = encode(tokenizer, turns)
    chat = [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    assert ids == tokenizer.encode(
        tokenizer.apply_chat_template(chat, tokenize=False), add_special_tokens=False
    )
    learnt = tokenizer.decode([number for number, wanted in zip(ids, expert, strict=True) if wanted])
    assert learnt == "<search> Ada Brook</search><|end|><answer> Dan</answer><|end|>"


def test_a_batch_of_demonstrations_is_padded_and_learns_no_padding(tokenizer: Any) -> None:
    envs = [make("env", "deepsearch", {"hops": [hops]}) for hops in (1, 3)]
    ids, mask = batch(random.Random(0), tokenizer, envs, 12)
    assert ids.shape == mask.shape
    assert not (mask & (ids == tokenizer.pad_token_id)).any()
    assert (ids == tokenizer.pad_token_id).any()


def test_the_same_seed_makes_the_same_model_and_a_kept_drill_is_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "FLUENT", -1.0)
    monkeypatch.setattr(train, "LONG_UPDATES", 2)
    monkeypatch.setattr(train, "measure", lambda *_: {"1 hop | temperature 1 | 0": 0.0})
    monkeypatch.setattr(train, "imitate_until", lambda *_: Stage("demonstrations"))
    for name in ("one", "other"):
        train.train(tmp_path / name, None, 0.4, seed=5)
    train.train(tmp_path / "third", tmp_path / "drills", 0.4, seed=5)
    train.train(tmp_path / "fourth", tmp_path / "drills", 0.4, seed=5)
    weights = [
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "other", "third", "fourth")
    ]
    assert len(set(weights)) == 1
    assert "| copying drills | 2 |" in (tmp_path / "fourth" / "README.md").read_text()


def test_learning_a_batch_again_and_again_makes_it_right(env: Any, tokenizer: Any) -> None:
    torch.manual_seed(0)
    learner = train.Learner(Stage("test", smoothing=0.0), train.make_model(tokenizer))
    ids, mask = drill(random.Random(0), words_of(tokenizer, env), Drill(rows=(2,), tokens=30, batch=4))
    for _ in range(60):
        learner.update(ids, mask, 3e-3)
    assert learner.stage.updates == 60
    assert learner.stage.accuracy > 0.9
