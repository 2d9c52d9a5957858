"""REINFORCE++ against the golden number, brute force, and the properties it promises."""

from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl import Batch, Group, Segment, Span, Task, Trajectory
from agentrl_reinforce_pp import ReinforcePP, discounted_returns, whitened

ROWS = st.lists(st.lists(st.integers(-40, 40).map(lambda n: n / 4), max_size=5), max_size=5)


def algorithm(**options):
    return ReinforcePP(ReinforcePP.Config(**options))


def played(reward, lengths):
    segments = [Segment([0] * 9, [Span(1, [-1.0] * length, 0)]) for length in lengths]
    return Trajectory(Task("t"), segments=segments, reward=reward)


def batch_of(*groups):
    return Batch([Group(Task("t"), [played(*each) for each in group]) for group in groups])


def advantages(found):
    """Return the advantages of all tokens, in order."""
    return [each for group in found for credit in group for each in credit.advantages]


def test_the_first_advantage_is_the_golden_one():
    returns = [discounted_returns(rewards, gamma=1) for rewards in ([0.5, 1], [0.2, 1])]
    assert returns == [[1.5, 1], [1.2, 1]]
    assert whitened(returns, epsilon=0)[0][0] == pytest.approx(1.3754, abs=5e-5)


def test_returns_are_discounted_by_step():
    assert discounted_returns([0.05, 0.0375, 0.05, 0.85], 0.95) == pytest.approx(
        [0.85951875, 0.852125, 0.8575, 0.85]
    )


@given(ROWS)
def test_whitened_numbers_have_mean_0_and_deviation_1(rows):
    found = [number for row in whitened(rows, epsilon=0) for number in row]
    assert [len(row) for row in whitened(rows, epsilon=0)] == [len(row) for row in rows]
    if len({number for row in rows for number in row}) > 1:
        assert fmean(found) == pytest.approx(0, abs=1e-9)
        assert stdev(found) == pytest.approx(1)
    else:
        assert not any(found)


@given(ROWS, st.floats(0.1, 10), st.floats(-10, 10))
def test_whitening_does_not_see_scale_and_shift(rows, scale, shift):
    other = [[scale * number + shift for number in row] for row in rows]
    if len({number for row in rows for number in row}) > 1:
        for one, two in zip(whitened(rows, 0), whitened(other, 0), strict=True):
            assert one == pytest.approx(two, abs=1e-6)


def test_a_trajectory_counts_by_its_tokens():
    found = advantages(algorithm(epsilon=0).credit(batch_of([(1, [2, 1])], [(0, [1])])))
    # Of the tokens' returns 1, 1, 1, 0 the mean is .75 and the sample deviation .5.
    assert found == pytest.approx([0.5, 0.5, 0.5, -1.5])


def test_a_group_may_be_the_baseline():
    batch = batch_of([(1, [1]), (0, [1])], [(1, [1]), (1, [1])])
    found = advantages(algorithm(baseline="group", epsilon=0).credit(batch))
    expected = [0.5, -0.5, 0, 0]
    assert found == pytest.approx([each / stdev(expected) for each in expected])
    assert found[2:] == [0, 0]


@pytest.mark.parametrize("baseline", ["none", "group"])
def test_equal_rewards_teach_nothing_exactly(baseline):
    batch = batch_of([(0.1, [2]), (0.1, [3]), (0.1, [1])], [(0.1, [2])])
    assert not any(advantages(algorithm(baseline=baseline, epsilon=0).credit(batch)))


def test_the_penalty_is_paid_token_by_token():
    batch = batch_of([(1, [2])], [(0, [1])])
    batch.reference_logprobs = [[[-1.5, -1.0]], [[-2.0]]]
    found = algorithm(kl="reward", kl_coefficient=0.1, gamma=0.5, epsilon=0).credit(batch)
    # The log-probabilities are -1, so x is .5, 0 and 1; the outcome is at the last token.
    returns = [-0.05 + 0.5 * 1, 1, -0.1]
    expected = [(each - fmean(returns)) / stdev(returns) for each in returns]
    assert advantages(found) == pytest.approx(expected)


def test_groups_are_needed_only_as_a_baseline():
    assert algorithm().needs == frozenset()
    assert algorithm(baseline="group").needs == {"groups"}
    assert algorithm(kl="reward", kl_coefficient=0.1).needs == {"reference", "logprobs"}
