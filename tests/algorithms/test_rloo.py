"""Leave-one-out advantages against the golden numbers, and what they promise."""

from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agentrl.cli.describe import options_of
from agentrl.config import resolve
from agentrl_loop import LOOP
from agentrl_rloo import RLOO, leave_one_out

REWARDS = st.lists(st.floats(-10, 10), min_size=2, max_size=8)


def test_advantages_of_rloo_are_the_golden_ones():
    rewards = [1.0, 0, 0, 1, 0, 0, 0, 0]
    expected = [0.857143 if reward else -0.285714 for reward in rewards]
    assert RLOO().advantages(rewards) == pytest.approx(expected, abs=1e-6)


def test_advantages_of_loop_are_the_golden_ones():
    found = LOOP().advantages([1, 0.75, 0.5, 0.5, 0, 0.25])
    assert found == pytest.approx([0.6, 0.3, 0, 0, -0.6, -0.3])
    assert found[2:4] == [0, 0]


@given(REWARDS)
def test_a_reward_is_compared_with_the_mean_of_the_others(rewards):
    for index, advantage in enumerate(leave_one_out(rewards)):
        others = rewards[:index] + rewards[index + 1 :]
        assert advantage == pytest.approx(rewards[index] - fmean(others), abs=1e-9)


@given(REWARDS, st.floats(-10, 10))
def test_advantages_sum_to_nothing_and_do_not_see_a_shift(rewards, shift):
    found = leave_one_out(rewards)
    assert sum(found) == pytest.approx(0, abs=1e-9)
    assert leave_one_out([reward + shift for reward in rewards]) == pytest.approx(found, abs=1e-9)


@pytest.mark.parametrize("rewards", [[0.1] * 3, [0.7], [0.0] * 8])
def test_equal_rewards_and_single_trajectories_teach_nothing_exactly(rewards):
    assert leave_one_out(rewards) == [0.0] * len(rewards)


@given(REWARDS, st.floats(0, 1))
def test_loop_drops_what_is_negligible_and_nothing_else(rewards, negligible):
    found = LOOP(LOOP.Config(negligible=negligible)).advantages(rewards)
    for kept, advantage in zip(found, leave_one_out(rewards), strict=True):
        assert kept == (advantage if abs(advantage) >= negligible else 0)


def test_loop_clips_at_a_tenth_either_way():
    config = LOOP.Config()
    assert (1 - config.clip_low, 1 + config.clip_high) == pytest.approx((1 / 1.1, 1.1))


@pytest.mark.parametrize("algorithm", [RLOO, LOOP])
@pytest.mark.parametrize("option", ["normalisation", "epsilon"])
def test_options_without_effect_are_refused(algorithm, option):
    with pytest.raises(ValidationError, match="Extra inputs"):
        algorithm.Config(**{option: getattr(algorithm.Config(), option)})


def test_what_is_inherited_is_described_too():
    options = options_of(LOOP.Config, "algorithm")
    assert {option.key for option in options if not option.description} == set()


def test_loop_suggests_to_any_trainer_to_go_over_trajectories_twice():
    document = {"env": "deepsearch", "algorithm": "loop"}
    for trainer in ("torch", "deepspeed"):
        config = resolve({**document, "trainer": trainer})
        assert config.trainer.options["epochs"] == 2
    assert resolve(document, sets=["trainer.epochs=1"]).trainer.options["epochs"] == 1
