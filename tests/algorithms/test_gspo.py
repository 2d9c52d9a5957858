"""GSPO's gradient against brute force over the paper's formula."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl import Tokens
from agentrl.aggregation import token_weights
from agentrl_grpo import GRPO
from agentrl_gspo import GSPO

# Log-ratios of a trajectory's tokens, and its advantage.
TRAJECTORIES = st.lists(
    st.tuples(st.lists(st.floats(-2e-3, 2e-3), min_size=1, max_size=4), st.floats(-2, 2)),
    min_size=1,
    max_size=4,
)


def tokens(trajectories):
    """Return tokens with such log-ratios to the policy before the update."""
    lengths = [len(gaps) for gaps, _ in trajectories]
    gaps = torch.tensor([gap for gaps, _ in trajectories for gap in gaps], dtype=torch.float64)
    advantages = torch.tensor([a for gaps, a in trajectories for _ in gaps], dtype=torch.float64)
    places = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    old = torch.full_like(gaps, -1.5)
    logprobs = (old + gaps).requires_grad_()
    return Tokens(logprobs, old, old, advantages, places, places, len(lengths), -old)


def trained(algorithm, trajectories):
    """Return loss and gradient, aggregated as a trainer does."""
    batch = tokens(trajectories)
    weights = token_weights([len(gaps) for gaps, _ in trajectories], algorithm.aggregation)
    weights_N = torch.tensor(weights, dtype=torch.float64)[batch.trajectory]
    loss = (algorithm.loss(batch) * weights_N).sum()
    loss.backward()
    return loss.item(), batch.logprobs.grad.tolist()


def by_the_formula(trajectories, low, high):
    """Return value and gradient of the negative of eq. 5, with plain numbers."""
    loss, gradient = 0.0, []
    for gaps, advantage in trajectories:
        ratio = math.exp(sum(gaps) / len(gaps))
        bounded = min(max(ratio, 1 - low), 1 + high)
        value = min(ratio * advantage, bounded * advantage)
        loss -= value / len(trajectories)
        slope = ratio * advantage / len(gaps) if value == ratio * advantage else 0.0
        gradient += [-slope / len(trajectories)] * len(gaps)
    return loss, gradient


@given(TRAJECTORIES)
@settings(deadline=None)
def test_loss_and_gradient_are_those_of_the_formula(trajectories):
    config = GSPO.Config()
    lows_and_highs = 1 - config.clip_low, 1 + config.clip_high
    ratios = [math.exp(sum(gaps) / len(gaps)) for gaps, _ in trajectories]
    if any(math.isclose(ratio, bound, rel_tol=1e-12) for ratio in ratios for bound in lows_and_highs):
        return  # the gradient jumps there
    loss, gradient = trained(GSPO(), trajectories)
    expected_loss, expected = by_the_formula(trajectories, config.clip_low, config.clip_high)
    assert loss == pytest.approx(expected_loss, abs=1e-12)
    assert gradient == pytest.approx(expected, abs=1e-12)


def test_a_trajectory_is_clipped_as_a_whole():
    batch = tokens([([0.01, -0.0098], 1.0), ([0.01, -0.005], 1.0), ([0.01, -0.005], -1.0)])
    GSPO().loss(batch).sum().backward()
    assert (batch.logprobs.grad != 0).tolist() == [True, True, False, False, True, True]
    assert batch.logged["clip_share"].tolist() == [0, 0, 1, 1, 0, 0]
    assert batch.logged["ratio"].tolist()[:2] == pytest.approx([math.exp(1e-4)] * 2)


def test_on_policy_it_is_grpo_with_its_aggregation():
    trajectories = [([0.0, 0.0, 0.0], 1.3), ([0.0], -0.4)]
    plain = GRPO(GRPO.Config(aggregation="seq-mean-token-mean"))
    assert trained(GSPO(), trajectories)[1] == pytest.approx(trained(plain, trajectories)[1])


def test_absurd_ratios_stay_finite():
    loss, gradient = trained(GSPO(), [([500.0, 900.0], -1.0), ([-900.0], 1.0)])
    assert math.isfinite(loss)
    assert all(map(math.isfinite, gradient))
