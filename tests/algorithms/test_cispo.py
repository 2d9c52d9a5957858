"""CISPO's gradient against the paper's formula."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agentrl import Tokens
from agentrl_cispo import CISPO
from agentrl_grpo import GRPO

RATIOS_AND_ADVANTAGES = st.lists(st.tuples(st.floats(0.01, 20), st.floats(-2, 2)), min_size=1, max_size=6)


def cispo(**options):
    return CISPO(CISPO.Config(**options))


def gradient(algorithm, pairs):
    """Return the tokens and the gradient of their losses."""
    ratios, advantages = (torch.tensor(column, dtype=torch.float64) for column in zip(*pairs, strict=True))
    old = torch.full_like(ratios, -1.5)
    places = torch.zeros(len(pairs), dtype=torch.long)
    logprobs = (old + ratios.log()).requires_grad_()
    tokens = Tokens(logprobs, old, old, advantages, places, places, 1, -old)
    algorithm.loss(tokens).sum().backward()
    return tokens, logprobs.grad.tolist()


@given(RATIOS_AND_ADVANTAGES, st.sampled_from([1.0, 0.2]), st.sampled_from([0.28, 4.0]))
def test_the_gradient_is_that_of_a_weighted_log_likelihood(pairs, low, high):
    _, found = gradient(cispo(clip_low=low, clip_high=high), pairs)
    assert found == pytest.approx([-min(max(r, 1 - low), 1 + high) * a for r, a in pairs])


def test_no_token_stops_to_learn_where_ppo_stops():
    pairs = [(9.0, 1.0), (9.0, -1.0), (0.1, 1.0), (0.1, -1.0)]
    tokens, found = gradient(cispo(), pairs)
    assert found == pytest.approx([-5, 5, -0.1, 0.1])
    assert tokens.logged["clip_share"].tolist() == [1, 1, 0, 0]
    _, clipped = gradient(GRPO(), pairs)
    assert [each == 0 for each in clipped] == [True, False, False, True]


def test_on_policy_the_gradient_is_that_of_grpo():
    pairs = [(1.0, 0.7), (1.0, -2.0)]
    assert gradient(cispo(), pairs)[1] == pytest.approx(gradient(GRPO(), pairs)[1])


def test_absurd_ratios_stay_finite():
    _, found = gradient(cispo(), [(math.exp(300), 1.0), (math.exp(-300), -1.0)])
    assert found == pytest.approx([-5, 0], abs=1e-8)


def test_a_bound_of_ppo_is_refused():
    with pytest.raises(ValidationError, match="Extra inputs"):
        CISPO.Config(dual_clip=3)
