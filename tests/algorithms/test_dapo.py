"""DAPO keeps groups that teach, and treats overlong trajectories as it is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agentrl import Batch, Group, Segment, Span, Task, Trajectory
from agentrl.hooks import Hooks
from agentrl_dapo import DAPO
from agentrl_grpo import GRPO


def dapo(**options):
    return DAPO(DAPO.Config(**options))


def played(reward, sampled=3, stop="done"):
    spans = [Span(1, [-1.0] * sampled, 0)]
    return Trajectory(Task("t"), segments=[Segment([0] * (sampled + 1), spans)], reward=reward, stop=stop)


def group(*trajectories):
    return Group(Task("t"), list(trajectories))


@given(st.lists(st.sampled_from([0.0, 0.1, 1.0]), min_size=1, max_size=5))
def test_groups_are_kept_unless_their_rewards_are_all_equal(rewards):
    assert dapo().keep_group(group(*map(played, rewards))) is (len(set(rewards)) > 1)


@pytest.mark.parametrize(
    ("sampled", "punishment"),
    [(0, 0), (80, 0), (85, -0.25), (90, -0.5), (100, -1), (101, -1), (1000, -1)],
)
def test_the_punishment_grows_over_the_buffer(sampled, punishment):
    algorithm = dapo(overlong_length=100, overlong_buffer=20)
    assert algorithm.adjust_reward(played(1, sampled)) == pytest.approx(punishment)
    assert dapo().adjust_reward(played(1, sampled)) == 0


def test_trajectories_that_differ_only_in_their_punishment_are_equally_good():
    algorithm = dapo(overlong_length=10, overlong_buffer=7)
    hooks = Hooks(installed=False)
    hooks.invite(algorithm, "dapo")
    trajectories = [played(0.1, sampled) for sampled in (1, 5, 6, 8, 11)]
    for each in trajectories:
        each.reward += hooks.adjust_reward(each)
    assert len({each.reward for each in trajectories}) > 1
    assert not hooks.keep_group(group(*trajectories))
    trajectories[0].reward += 1
    assert hooks.keep_group(group(*trajectories))


@pytest.mark.parametrize("stop", ["max_turns", "max_tokens"])
def test_what_was_cut_off_can_be_left_out_of_the_loss_but_not_of_the_comparison(stop):
    batch = Batch([group(played(1), played(0), played(0, stop=stop))])
    expected = [list(credit.advantages) for credit in GRPO().credit(batch)[0]]
    for filtered in (False, True):
        found = [list(c.advantages) for c in dapo(filter_truncated=filtered).credit(batch)[0]]
        assert found == [*expected[:2], [0.0] * 3 if filtered else expected[2]]


def test_its_parts_are_those_of_the_paper():
    config = DAPO.Config()
    assert (config.clip_low, config.clip_high) == (0.2, 0.28)
    assert (config.kl, config.aggregation) == ("none", "token-mean")
    assert DAPO.suggests["refills"] > 0


@pytest.mark.parametrize(
    "options",
    [{"overlong_length": 10}, {"overlong_buffer": 5}, {"overlong_length": 4, "overlong_buffer": 5}],
)
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ValidationError, match="overlong_buffer"):
        DAPO.Config(**options)
