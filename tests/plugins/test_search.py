"""The agent `search`, on an engine that says what the test tells it to say."""

import asyncio
from collections.abc import Sequence

from agentrl import Sampling
from agentrl.chat import ChatFormat
from agentrl.conversation import Conversation
from agentrl.interfaces import Agent
from agentrl.testing import ScriptedEngine, check_agent
from agentrl.types import Action, Observation
from agentrl_search import INSTRUCTIONS, Search, key_of


def act(agent: Agent, says: Sequence[str], observations: Sequence[str]) -> tuple[list[Action], str]:
    """Return the actions, and the text of the tokens that went to and fro."""
    engine = ScriptedEngine(says)
    conversation = Conversation(engine, ChatFormat(engine.tokenizer), Sampling(max_tokens=200), "episode")

    async def play() -> list[Action]:
        return [await agent.act(Observation(text), conversation) for text in observations]

    actions = asyncio.run(play())
    (segment,) = conversation.segments
    return actions, engine.tokenizer.decode(segment.token_ids, skip_special_tokens=False)


def test_search_gives_its_instructions_once_and_observations_as_the_user() -> None:
    says = ["<think> hm</think><search> Ada</search>", "<answer> Dan</answer>"]
    actions, text = act(Search(), says, ["Question: who?", "<information>Dan</information>"])
    assert [action.text for action in actions] == says
    assert text == (
        f"<|system|>\n{INSTRUCTIONS}<|end|>\n<|user|>\nQuestion: who?<|end|>\n<|assistant|>\n{says[0]}"
        f"<|end|>\n<|user|>\n<information>Dan</information><|end|>\n<|assistant|>\n{says[1]}"
    )


def test_search_stops_the_model_at_the_end_of_its_first_action() -> None:
    actions, _ = act(Search(), ["<search> Ada</search><information>made up</information>"], ["who?"])
    assert actions[0].text == "<search> Ada</search>"


def test_actions_that_do_the_same_have_the_same_key() -> None:
    assert key_of("<think> x</think><search> The Mentor of Ada?</search>") == "search: mentor of ada"
    assert key_of("<search>mentor of  Ada</search>") == "search: mentor of ada"
    assert key_of("<answer>mentor of Ada</answer>") == "answer: mentor of ada"
    assert key_of("mentor of Ada") is None


def test_instructions_can_be_replaced_and_left_out() -> None:
    assert act(Search(Search.Config(instructions="Be brief.")), ["x"], ["who?"])[1].startswith(
        "<|system|>\nBe brief."
    )
    assert act(Search(Search.Config(instructions="")), ["x"], ["who?"])[1].startswith("<|user|>\nwho?")


def test_it_keeps_the_rules_of_agents() -> None:
    check_agent(Search, ["<think> a</think><search> b</search>", "<answer> c</answer>"])
