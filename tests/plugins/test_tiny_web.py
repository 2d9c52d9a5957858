"""The built-in model for envs in a browser: its words, its drills, and what it can do."""

import random
import re
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from agentrl.chat import ChatFormat
from agentrl.types import system, user
from agentrl_browser import Call, Element, View, parse
from agentrl_tiny import Tiny, TinyWeb
from agentrl_tiny.drilling import teach
from agentrl_tiny.pages import FILL, PRESS, SELECT, Pages
from agentrl_tiny.tokenizer import as_symbols
from agentrl_tiny.train_web import drills, fluency, translate
from agentrl_tiny.web_tokenizer import build_web_tokenizer, web_words

FOLDER = TinyWeb().path()
PAGE = """\
RootWebArea 'Lamp', url='/'
	[1] textbox 'Boat', value='red kite', focused
	[2] combobox 'House', value='none'
		option 'none', value='', selected=True
		option 'Garden', selected=False
	StaticText 'Found: 17, red'
	[13] button 'Save the letter'"""


@cache
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(FOLDER)


def pieces(text: str) -> list[str]:
    return [tokenizer().decode([number]) for number in tokenizer().encode(text, add_special_tokens=False)]


@settings(deadline=None, max_examples=300)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_encoding(text: str) -> None:
    ids = tokenizer().encode(text, add_special_tokens=False)
    assert tokenizer().decode(ids) == text


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.sampled_from(["\n\t[", "1", "] ", "button", " '", "'", ", ", "value", "=", "True", "red", "é"])
    )
)
def test_what_looks_like_a_page_survives_encoding(parts: list[str]) -> None:
    text = "".join(parts)
    assert tokenizer().decode(tokenizer().encode(text, add_special_tokens=False)) == text


def test_the_shipped_tokenizer_is_the_one_the_script_builds() -> None:
    assert build_web_tokenizer().get_vocab() == tokenizer().get_vocab()


def test_a_page_has_one_token_a_word_and_one_for_what_stands_between() -> None:
    shown = pieces(PAGE)
    assert "".join(shown) == PAGE
    assert shown[:8] == ["RootWebArea", " '", "Lamp", "', url='", "/'", "\n\t", "[1]", " textbox '"]
    assert pieces("fill('Boat', 'red kite')") == ["fill", "('", "Boat", "', '", "red", " kite", "')"]
    assert pieces("click(\"button '17'\")") == ["click", '("', "button", " '", "17", "'\")"]
    assert pieces("select_option('2', 'Oven')")[0] == "select_option"
    assert pieces("Goal: Tap 17, next note red kite.") == [
        *("Goal", ":", " Tap", " 17", ",", " next", " note", " red", " kite", ".")
    ]


def test_a_system_prompt_is_left_out() -> None:
    chat = ChatFormat(tokenizer())
    assert chat.opening((system("Use the page."), user("Goal"))) == chat.opening((user("Goal"),))


def done_to(page: View, call: Call) -> Element:
    """Return what a call acts on."""
    bid = page.meant(call.arguments["bid"])
    return next(each for each in page.all() if each.bid == bid)


def solve(dialogue: list[tuple[str, str]]) -> None:
    """Check that what is answered does what the goal says, to what the page shows, in its order."""
    goal = dialogue[0][0].partition("\n")[0]
    place = 0
    for shown, answered in dialogue[:-1]:
        call = parse(answered)
        element = done_to(View.of(shown), call)
        assert element.role == {"click": "button", "fill": "textbox", "select_option": "combobox"}[call.name]
        value = call.arguments.get("value", call.arguments.get("options", [None])[0])
        for said in filter(None, (value, element.name)):
            place = goal.index(said, place) + len(said)
    assert dialogue[-1][1] == "done()"


def test_what_is_answered_in_a_dialogue_solves_it() -> None:
    pages = Pages(random.Random(0))
    for _ in range(300):
        solve(pages.dialogue())


def test_a_page_shows_what_was_done_to_it() -> None:
    pages, seen = Pages(random.Random(1)), 0
    for _ in range(200):
        dialogue = pages.dialogue()
        for (before, answered), (shown, _) in pairwise(dialogue):
            call = parse(answered)
            bid = done_to(View.of(before), call).bid
            if call.name == "fill":
                seen += 1
                after = next(each for each in View.of(shown).all() if each.bid == bid)
                assert after.value == call.arguments["value"]
            assert shown.count(", focused") == 1
    assert seen > 50


def test_each_short_goal_about_a_page_is_answered_with_an_element_of_it() -> None:
    pages = Pages(random.Random(2))
    for _ in range(100):
        dialogue = pages.one_page()
        page = View.of(dialogue[0][0])
        used = {done_to(page, parse(answered)).bid for _, answered in dialogue}
        assert used == {each.bid for each in page.all()}


def test_drills_differ_with_the_seed_and_names_are_no_words_that_join_goals() -> None:
    assert Pages(random.Random(1)).dialogue() == Pages(random.Random(1)).dialogue()
    assert Pages(random.Random(1)).dialogue() != Pages(random.Random(2)).dialogue()
    assert not {"in", "at", "and", "next", "tap"} & set(Pages(random.Random(0)).words)


def test_drills_have_no_goal_of_a_gym() -> None:
    normcore: Any = pytest.importorskip("agentrl_normcore")
    env = normcore.Normcore(normcore.Normcore.Config())
    goals = [
        env.explain(task) and normcore.workload.problem_of(task.data).goal for task in env.tasks("train")[:50]
    ]
    verbs = {word for goal in goals for word in re.findall(r"[A-Za-z]+", goal)}
    assert not verbs & {*PRESS, *FILL, *SELECT, *(word.lower() for word in (*PRESS, *FILL, *SELECT))}


def test_a_translated_model_keeps_what_it_knew_of_a_word() -> None:
    folder = Tiny().path()
    old, new = (AutoModelForCausalLM.from_pretrained(folder) for _ in range(2))
    known = AutoTokenizer.from_pretrained(folder).get_vocab()
    translate(new, known, tokenizer())
    here = tokenizer().get_vocab()
    for word in (" lamp", " Stone", "<|user|>", "x"):
        row = new.get_input_embeddings().weight[here[as_symbols(word)]]
        assert torch.equal(row, old.get_input_embeddings().weight[known[as_symbols(word)]])
    assert new.config.vocab_size == len(tokenizer())
    assert {"red", "save"} <= set(web_words())


def test_the_drills_teach_it() -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(Tiny().path())
    translate(model, AutoTokenizer.from_pretrained(Tiny().path()).get_vocab(), tokenizer())
    stage = teach(model, "page drills", drills(tokenizer(), 4, seed=0), updates=4)
    assert stage.updates == 4
    assert 0 < stage.loss < 20


def test_it_finds_what_it_is_told_to_use() -> None:
    model = AutoModelForCausalLM.from_pretrained(FOLDER)
    assert fluency(model, tokenizer(), seed=1, dialogues=96) > 0.8
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 6_000_000
    assert (FOLDER / "README.md").read_text(encoding="utf-8").startswith("---\nlicense: apache-2.0\n")
