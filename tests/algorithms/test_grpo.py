"""GRPO's advantages against the golden numbers, and the properties they promise."""

import pytest
from pydantic import ValidationError

from agentrl import Batch, Group, Segment, Span, Task, Trajectory
from agentrl_grpo import GRPO

ONE_SUCCESS_IN_FOUR = [1.0, 0, 0, 1, 0, 0, 0, 0]


def grpo(**options):
    return GRPO(GRPO.Config(**options))


@pytest.mark.parametrize(
    ("normalisation", "winner", "loser"),
    [("sample", 1.620182, -0.540061), ("population", 1.732051, -0.577350), ("none", 0.75, -0.25)],
)
def test_advantages_are_the_golden_ones(normalisation, winner, loser):
    found = grpo(normalisation=normalisation).advantages(ONE_SUCCESS_IN_FOUR)
    expected = [winner if reward else loser for reward in ONE_SUCCESS_IN_FOUR]
    # The golden ones are rounded, and those of the population leave epsilon out.
    assert found == pytest.approx(expected, abs=5e-6)


def test_one_success_among_n_stands_out_by_the_root_of_n_less_one():
    found = grpo(normalisation="population", epsilon=0).advantages([1.0] + [0.0] * 7)
    assert found == pytest.approx([2.645751] + [-0.377964] * 7, abs=1e-6)


@pytest.mark.parametrize("rewards", [[0.1] * 3, [0.7], [0.0] * 8])
@pytest.mark.parametrize("normalisation", ["sample", "population", "none"])
def test_equal_rewards_teach_nothing_exactly(normalisation, rewards):
    options = {} if normalisation == "none" else {"epsilon": 0}
    assert grpo(normalisation=normalisation, **options).advantages(rewards) == [0.0] * len(rewards)


def test_an_epsilon_that_nothing_would_use_is_refused():
    with pytest.raises(ValidationError, match="epsilon goes with normalisation"):
        GRPO.Config(normalisation="none", epsilon=0.5)


def played(reward, lengths):
    segments = [Segment([0] * 9, [Span(1, [-1.0] * length, 0)]) for length in lengths]
    return Trajectory(Task("t"), segments=segments, reward=reward)


def test_every_sampled_token_gets_its_trajectorys_advantage():
    group = Group(Task("t"), [played(1, [2, 3]), played(0, [4]), played(0, [])])
    credits = grpo(normalisation="none").credit(Batch([group]))
    expected = [[2 / 3] * 5, [-1 / 3] * 4, []]
    for credit, advantages in zip(credits[0], expected, strict=True):
        assert list(credit.advantages) == pytest.approx(advantages)
        assert credit.returns is None


def test_groups_are_needed_and_whatever_the_loss_needs():
    assert grpo().needs == {"groups"}
    assert grpo(kl="k2", kl_coefficient=0.001).needs == {"groups", "reference"}


def test_a_penalty_in_the_reward_is_taken_off_before_rewards_are_compared():
    group = Group(Task("t"), [played(1, [2]), played(0, [3])])
    batch = Batch([group], reference_logprobs=[[[-1.5, -1.0], [-1.0, -2.0, -1.0]]])
    algorithm = grpo(normalisation="none", kl="reward", kl_coefficient=0.1)
    found = [credit.advantages[0] for credit in algorithm.credit(batch)[0]]
    # The log-probabilities are -1: x is (.5, 0) and (0, 1, 0).
    assert found == pytest.approx([(0.95 - -0.1) / 2, (-0.1 - 0.95) / 2])
