"""The rewards that compare answers, on golden examples and on the rules of their kind."""

import asyncio

import pytest

from agentrl.interfaces import Reward
from agentrl.testing import make_trajectory
from agentrl.testing.rewards import check_reward
from agentrl.text import normalize_answer
from agentrl_cover_em import CoverEM
from agentrl_exact_match import ExactMatch
from agentrl_f1 import F1
from agentrl_success import Success


def score(reward: Reward, answer: str | None, *references: str, success: bool = False) -> float:
    trajectory = make_trajectory(answer=answer, references=references, success=success)
    return asyncio.run(reward.score(trajectory))


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The U.S.A.", "usa"),
        ("a-b", "ab"),
        ("An apple, the pie", "apple pie"),
        ("  Two\n words ", "two words"),
        ("The", ""),
    ],
)
def test_answers_are_normalised_as_in_squad(text: str, normal: str) -> None:
    assert normalize_answer(text) == normal


@pytest.mark.parametrize("reward", [ExactMatch, F1, CoverEM, Success])
def test_a_shipped_reward_keeps_the_rules_of_rewards(reward: type[Reward]) -> None:
    check_reward(reward)


def test_exact_match_accepts_any_reference_in_any_spelling_that_normalises_alike() -> None:
    assert score(ExactMatch(), "the Eiffel tower!", "Louvre", "Eiffel Tower") == 1.0
    assert score(ExactMatch(), "Eiffel", "Eiffel Tower") == 0.0
    assert score(ExactMatch(), None, "Eiffel Tower") == 0.0


def test_f1_counts_shared_words_and_takes_the_best_reference() -> None:
    # Two of three words are right, and two of two are found: 2 * (2/3 * 1) / (2/3 + 1) = 0.8.
    assert score(F1(), "old Eiffel Tower", "Eiffel Tower", "Louvre") == pytest.approx(0.8)
    # A word said twice counts as often as the reference has it.
    assert score(F1(), "tower tower", "tower bridge") == pytest.approx(0.5)
    assert score(F1(), "Rome", "Paris") == 0.0
    assert score(F1(), None, "Paris") == 0.0


def test_cover_em_is_satisfied_by_a_right_answer_anywhere() -> None:
    assert score(CoverEM(), "Rome, Paris, or the London", "London") == 1.0
    assert score(CoverEM(), "Rome", "Paris", "The") == 0.0


def test_success_is_the_verdict_of_the_env() -> None:
    assert score(Success(), "wrong", "right", success=True) == 1.0
    assert score(Success(), "right", "right", success=False) == 0.0
