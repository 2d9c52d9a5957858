"""PPO against the golden numbers, and against a reference written from the formulas, token by token."""

import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agentrl import Batch, Group, Segment, Span, Task, Tokens, Trajectory
from agentrl_ppo import PPO, bilevel_advantages, token_advantages, turn_advantages, turn_bounds


def ppo(**options):
    return PPO(PPO.Config(**options))


def played(reward, turns):
    """Return a trajectory whose turns sampled so many tokens each."""
    spans, start = [], 1
    for turn, length in enumerate(turns):
        spans.append(Span(start, [-1.0] * length, turn))
        start += length + 2
    return Trajectory(Task("t"), segments=[Segment([0] * (start + 1), spans)], reward=reward)


def batch_of(trajectories, values, reference=None):
    return Batch([Group(Task("t"), trajectories)], values=[values], reference_logprobs=reference)


GAE = [
    ((1, 1), [0.5, 0.6, 0.2]),
    ((1, 0.95), [0.4605, 0.59, 0.2]),
    ((0.99, 0.95), [0.44158405, 0.5801, 0.2]),
    ((0.9, 0.5), [0.0445, 0.41, 0.2]),
]


@pytest.mark.parametrize(("options", "expected"), GAE)
def test_advantages_are_the_golden_ones(options, expected):
    gamma, lambda_ = options
    assert token_advantages([0, 0, 1], [0.5, 0.4, 0.8], gamma, lambda_) == pytest.approx(expected)
    algorithm = ppo(gamma=gamma, lambda_policy=lambda_, lambda_critic=lambda_, whiten=False)
    credit = algorithm.credit(batch_of([played(1, [3])], [[0.5, 0.4, 0.8]]))[0][0]
    assert credit.advantages == pytest.approx(expected)
    assert credit.returns == pytest.approx([a + v for a, v in zip(expected, [0.5, 0.4, 0.8], strict=True)])


def test_given_tokens_between_turns_are_skipped():
    # Seven tokens, the third to fifth of which are an observation: there is nothing of them in the credit.
    algorithm = ppo(gamma=0.99, lambda_policy=0.95, whiten=False)
    credit = algorithm.credit(batch_of([played(1, [2, 2])], [[0.5, 0.4, 0.6, 0.8]]))[0][0]
    assert credit.advantages == pytest.approx([0.41467075, 0.55148405, 0.3801, 0.2])


def test_advantages_of_turns_are_the_golden_ones():
    assert turn_advantages([0, 1], [0.5, 0.6], [(0, 1), (1, 2)], 1, 0.95) == pytest.approx([0.48, 0.40])
    algorithm = ppo(gae="turn", lambda_policy=0.95, lambda_critic=0.95, whiten=False)
    credit = algorithm.credit(batch_of([played(1, [3, 2])], [[0.5, 7, 7, 0.6, 7]]))[0][0]
    assert credit.advantages == pytest.approx([0.48] * 3 + [0.40] * 2)
    assert credit.returns == pytest.approx([0.98, math.nan, math.nan, 1.0, math.nan], nan_ok=True)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((1, 1, 1), [0.5, 0.6, 0.4, 0.2]),
        ((1, 1, 0.9), [0.4, 0.5, 0.4, 0.2]),
        ((0.99, 0.95, 0.9), [0.3577855, 0.491, 0.3801, 0.2]),
    ],
)
def test_advantages_of_two_levels_are_the_golden_ones(options, expected):
    gamma, lambda_, gamma_turn = options
    rewards, values = [0, 0, 0, 1], [0.5, 0.4, 0.6, 0.8]
    found = bilevel_advantages(rewards, values, [(0, 2), (2, 4)], gamma, lambda_, gamma_turn)
    assert found == pytest.approx(expected)
    algorithm = ppo(gae="bilevel", gamma=gamma, gamma_turn=gamma_turn, lambda_policy=lambda_, whiten=False)
    credit = algorithm.credit(batch_of([played(1, [2, 2])], [values]))[0][0]
    assert credit.advantages == pytest.approx(expected)


numbers = st.floats(-2, 2)
steps = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=12)


@given(steps, st.floats(0, 1))
def test_with_lambda_1_an_advantage_is_what_was_earned_less_what_was_expected(given_steps, gamma):
    rewards, values = map(list, zip(*given_steps, strict=True))
    earned = [
        sum(gamma**k * reward for k, reward in enumerate(rewards[t:])) - values[t]
        for t in range(len(rewards))
    ]
    assert token_advantages(rewards, values, gamma, 1) == pytest.approx(earned, abs=1e-9)


@given(steps, st.floats(0, 1))
def test_with_lambda_0_an_advantage_looks_one_step_ahead(given_steps, gamma):
    rewards, values = map(list, zip(*given_steps, strict=True))
    following = [*values[1:], 0]
    expected = [r + gamma * n - v for r, n, v in zip(rewards, following, values, strict=True)]
    assert token_advantages(rewards, values, gamma, 0) == pytest.approx(expected, abs=1e-9)


@given(steps, st.floats(0, 1), st.floats(0, 1))
def test_all_levels_agree_where_every_turn_is_one_token(given_steps, gamma, lambda_):
    rewards, values = map(list, zip(*given_steps, strict=True))
    turns = [(t, t + 1) for t in range(len(rewards))]
    expected = token_advantages(rewards, values, gamma, lambda_)
    assert turn_advantages(rewards, values, turns, gamma, lambda_) == pytest.approx(expected)
    assert bilevel_advantages(rewards, values, turns, gamma, lambda_, gamma) == pytest.approx(expected)


@given(steps)
def test_a_perfect_critic_leaves_nothing_to_learn(given_steps):
    rewards = [reward for reward, _ in given_steps]
    values = [sum(rewards[t:]) for t in range(len(rewards))]
    assert token_advantages(rewards, values, 1, 0.7) == pytest.approx([0] * len(rewards), abs=1e-9)


def test_turns_are_found_among_the_sampled_tokens():
    assert turn_bounds(played(0, [2, 1, 3])) == [(0, 2), (2, 3), (3, 6)]
    twice = Trajectory(Task("t"), segments=[Segment([0] * 9, [Span(1, [-1.0], 0), Span(3, [-1.0], 0)])])
    assert turn_bounds(twice) == [(0, 2)]


def test_a_turn_goes_on_where_the_context_was_restarted_in_its_midst():
    segments = [
        Segment([0] * 9, [Span(1, [-1.0], 0), Span(4, [-1.0, -1.0], 1)]),
        Segment([0] * 9, [Span(1, [-1.0], 1), Span(5, [-1.0, -1.0], 2)]),
    ]
    trajectory = Trajectory(Task("t"), segments=segments, reward=1)
    assert turn_bounds(trajectory) == [(0, 1), (1, 4), (4, 6)]
    values = [0.5, 0.6, 7, 7, 0.8, 7]
    found = ppo(gae="turn", lambda_policy=0, whiten=False).credit(batch_of([trajectory], [values]))
    assert found[0][0].advantages == pytest.approx([0.1] + [0.2] * 3 + [0.2] * 2)
    values = [0.5, 0.1, 0.2, 0.6, 0.3, 0.8]
    found = ppo(gae="bilevel", lambda_policy=0, whiten=False).credit(batch_of([trajectory], [values]))
    assert found[0][0].advantages == pytest.approx([0.1, 0.1, 0.4, 0.2, 0.5, 0.2])


def test_the_lambda_of_the_policy_may_follow_the_length():
    def first_advantage(length):
        algorithm = ppo(lambda_policy="length", whiten=False)
        return algorithm.credit(batch_of([played(1, [length])], [[0.0] * length]))[0][0].advantages[0]

    assert first_advantage(20) == 0  # lambda is 0 up to 20 tokens
    assert first_advantage(100) == pytest.approx((1 - 1 / 5) ** 99)


def test_the_lambda_of_the_critic_is_its_own():
    algorithm = ppo(lambda_policy=0.5, lambda_critic=1, whiten=False)
    credit = algorithm.credit(batch_of([played(1, [3])], [[0.5, 0.4, 0.8]]))[0][0]
    assert credit.returns == pytest.approx([1, 1, 1])
    assert credit.advantages == pytest.approx(token_advantages([0, 0, 1], [0.5, 0.4, 0.8], 1, 0.5))


def test_whitened_advantages_have_mean_0_and_deviation_1_over_the_update():
    batch = batch_of([played(1, [2, 3]), played(0, [4]), played(0, [])], [[0.5] * 5, [0.1] * 4, []])
    found = [a for credit in ppo().credit(batch)[0] for a in credit.advantages]
    assert sum(found) == pytest.approx(0, abs=1e-9)
    assert sum(a * a for a in found) == pytest.approx(len(found), rel=1e-5)
    assert batch.logged["advantage_deviation"] > 0


def test_whitening_does_not_blow_up_what_rounding_left():
    algorithm = ppo(kl="reward", kl_coefficient=0.01)
    reference = [[[-1 + 1e-6, -1.0, -1 - 1e-6, -1.0]]]  # no drift at all, but for float32
    found = algorithm.credit(batch_of([played(0, [4])], [[0.0] * 4], reference))[0][0].advantages
    assert max(map(abs, found)) < 0.02


def test_drift_is_paid_for_where_it_happens():
    algorithm = ppo(kl="reward", kl_coefficient=0.1, gamma=0, lambda_policy=0, whiten=False)
    batch = batch_of([played(1, [3])], [[0.0] * 3], [[[-1.0, -3.0, -0.5]]])
    assert algorithm.credit(batch)[0][0].advantages == pytest.approx([0, -0.2, 1 + 0.05])


def tokens(count, seed=0):
    """Return tokens of three trajectories around the edges of every clip, in float64."""
    rng = random.Random(seed)

    def draw(low, high):
        return torch.tensor([rng.uniform(low, high) for _ in range(count)], dtype=torch.float64)

    old, old_values = draw(-3, -0.1), draw(-1, 1)
    places = torch.tensor([k * 3 // count for k in range(count)])
    returns = draw(-1, 1)
    returns[::5] = math.nan
    return Tokens(
        logprobs=(old + draw(-0.8, 0.8)).requires_grad_(),
        old_logprobs=old,
        rollout_logprobs=old,
        advantages=draw(-2, 2),
        trajectory=places,
        turn=places,
        trajectories=3,
        entropy=draw(0, 1),
        reference_logprobs=old + draw(-0.5, 0.5),
        returns=returns,
        values=(old_values + draw(-0.5, 0.5)).requires_grad_(),
        old_values=old_values,
    )


def reference_loss(config, t, k):
    """Return the loss of token `k` from the formulas, in plain Python."""
    logprob, value = t.logprobs[k].item(), t.values[k].item()
    ratio, advantage = math.exp(logprob - t.old_logprobs[k].item()), t.advantages[k].item()
    clipped = min(max(ratio, 1 - config.clip_low), 1 + config.clip_high)
    loss = max(-advantage * ratio, -advantage * clipped)
    if config.dual_clip is not None and advantage < 0:
        loss = min(loss, -advantage * config.dual_clip)
    if config.kl == "k2":
        loss += config.kl_coefficient * (logprob - t.reference_logprobs[k].item()) ** 2 / 2
    target, before = t.returns[k].item(), t.old_values[k].item()
    if math.isnan(target):
        return loss
    near = min(max(value, before - config.value_clip), before + config.value_clip)
    return loss + config.value_coefficient * max((value - target) ** 2, (near - target) ** 2) / 2


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dual_clip": 1.4},
        {"kl": "k2", "kl_coefficient": 0.3},
        {"value_coefficient": 0.5, "value_clip": 0.1},
    ],
)
def test_loss_and_gradient_are_those_of_the_formulas(options):
    algorithm, step = ppo(**options), 1e-6
    batch = tokens(60)
    found = algorithm.loss(batch)
    expected = [reference_loss(algorithm.config, batch, k) for k in range(60)]
    assert found.tolist() == pytest.approx(expected, rel=1e-12)
    found.sum().backward()
    for tensor in (batch.logprobs, batch.values):
        for k in range(60):
            ends = []
            for move in (step, -step):
                with torch.no_grad():
                    tensor[k] += move
                ends.append(reference_loss(algorithm.config, batch, k))
                with torch.no_grad():
                    tensor[k] -= move
            assert tensor.grad[k].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-8)


def test_the_value_loss_is_the_golden_one():
    batch = tokens(1)
    batch.values = torch.tensor([1.5], dtype=torch.float64, requires_grad=True)
    batch.old_values, batch.returns = (torch.tensor([x], dtype=torch.float64) for x in (1.0, 2.0))
    assert ppo().value_loss(batch).item() == pytest.approx(0.32)
    assert ppo(value_clip=None).value_loss(batch).item() == pytest.approx(0.125)
    assert ppo(value_clip=None).loss(batch).item() == pytest.approx(ppo().policy_loss(batch).item() + 0.125)


def test_a_critic_is_needed_and_a_reference_only_for_a_penalty():
    assert ppo().needs == {"values"}
    assert ppo(kl="reward", kl_coefficient=0.1).needs == {"values", "reference", "logprobs"}
    assert not ppo().skips_zero_advantage


@pytest.mark.parametrize(
    "options",
    [
        {"gamma_turn": 0.9},
        {"lambda_policy": 1.5},
        {"lambda_policy": "short"},
        {"value_coefficient": float("inf")},
    ],
)
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ValidationError):
        PPO.Config(**options)
