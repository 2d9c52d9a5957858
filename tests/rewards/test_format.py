"""The format reward: what keeps to the convention, what does not, and that it is fast on anything."""

import asyncio
import time

import pytest

from agentrl.testing import make_trajectory
from agentrl.testing.rewards import check_reward
from agentrl_format import Format


@pytest.mark.parametrize(
    "text",
    [
        "<search> Ada Brook</search>",
        "<think> she is known</think><answer> Dan Hill</answer>",
        "<think>\n1 < 2\n</think>\n\n<search>is 1 < 2 or <b>?</search>\n",
    ],
)
def test_a_thought_and_one_action_in_tags_keep_to_the_format(text: str) -> None:
    assert Format().keeps(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Dan Hill",
        "<think> only thinking</think>",
        "<search></search>",
        "<search>  </search>",
        "<search> a</answer>",
        "<search> a</search><search> b</search>",
        "<answer> a</answer> and more",
        "so: <answer> a</answer>",
        "<think> a<think> b</think><answer> c</answer>",
        "<answer> c</answer><think> too late</think>",
    ],
)
def test_anything_else_does_not(text: str) -> None:
    assert not Format().keeps(text)


def test_a_thought_can_be_required_and_tags_can_be_chosen() -> None:
    code = Format(Format.Config(actions=("code",), thought_required=True))
    assert code.keeps("<think>x</think><code>print(1)</code>")
    assert not code.keeps("<code>print(1)</code>")
    assert not code.keeps("<think>x</think><search>y</search>")


def test_the_score_is_the_share_of_turns() -> None:
    trajectory = make_trajectory(("<search> a</search>", "hm", "<answer> b</answer>", "<answer>"))
    assert asyncio.run(Format().score(trajectory)) == 0.5


def test_it_keeps_the_rules_of_rewards() -> None:
    check_reward(Format)


def test_long_texts_take_no_time() -> None:
    began = time.perf_counter()
    for text in ("<think>" * 20_000, "<search>" + " a" * 50_000, "<think> " + "</think> " * 20_000):
        assert not Format().keeps(text)
    assert time.perf_counter() - began < 2
