"""GiGPO against the golden numbers, and the properties it promises."""

from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl import Action, Batch, Group, Observation, Span, Task, Turn
from agentrl.testing import make_walk
from agentrl_gigpo import GiGPO

# States, and the actions between them; the last state has no action.
GOLDEN = ["s0 a s1 b s2 c S", "s0 a s1 b s2 d F", "s0 a s1 x s3 c S", "s0 y s4 z s1 b s2 d F"]
REWARDS = [1.0, 0.0, 1.0, 0.0]
PER_TRAJECTORY = [
    [0.95125, 0.975, 1.166667],
    [-0.95125, -0.975, -0.833333],
    [0.95125, 0.975, 0.5],
    [-0.95125, -0.5, -0.975, -0.833333],
]
PER_STEP = [
    [0.989712, 1.013462, 1.205128],
    [-0.912788, -0.936538, -0.794872],
    [0.989712, 1.013462, 0.538462],
    [-0.912788, -0.461538, -0.936538, -0.794872],
]
SCALED = [
    [1.732048, 1.732048, 2.020722],
    [-1.732048, -1.732048, -1.443373],
    [1.732048, 1.732048, 0.866024],
    [-1.732048, -0.866024, -1.732048, -1.443373],
]


def gigpo(**options):
    return GiGPO(GiGPO.Config(**options))


def group(paths=GOLDEN, rewards=REWARDS, keys=True):
    return Group(
        Task("t"), [make_walk(path, reward, keys) for path, reward in zip(paths, rewards, strict=True)]
    )


def per_turn(algorithm, *groups):
    """Return the advantage of each turn of each trajectory of the first group."""
    credits = algorithm.credit(Batch(list(groups) or [group()]))[0]
    assert all(credit.advantages[::2] == credit.advantages[1::2] for credit in credits)
    return [list(credit.advantages[::2]) for credit in credits]


def flat(found):
    return list(chain.from_iterable(found))


@pytest.mark.parametrize("keys", [True, False])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, PER_TRAJECTORY),
        ({"statistics": "step"}, PER_STEP),
        ({"norm": "mean_std"}, SCALED),
    ],
)
def test_steps_have_the_golden_advantages(options, expected, keys):
    found = per_turn(gigpo(**options), group(keys=keys))
    assert flat(found) == pytest.approx(flat(expected), abs=2e-6)
    assert list(map(len, found)) == [3, 3, 3, 4]


def test_the_advantage_of_steps_has_a_weight():
    whole, half = (flat(per_turn(gigpo(weight=weight))) for weight in (1.0, 0.5))
    episode = [0.5] * 3 + [-0.5] * 3 + [0.5] * 3 + [-0.5] * 4
    halfway = [(one + other) / 2 for one, other in zip(whole, episode, strict=True)]
    assert half == pytest.approx(halfway)


def test_a_state_that_was_met_once_gives_a_step_nothing_of_its_own():
    assert per_turn(gigpo(), group(["s0 a s1", "s2 a s1"], [1.0, 0.0])) == [[0.5], [-0.5]]


def test_a_state_met_twice_by_one_trajectory_compares_it_with_itself():
    found = per_turn(gigpo(gamma=0.5), group(["s0 a s0 b s1"], [1.0]))
    assert found == [[-0.25, 0.25]]


def test_among_trajectories_that_all_succeed_quick_ones_are_favoured_unless_returns_are_undiscounted():
    paths, rewards = ["s0 a s1", "s0 b s2 c s1"], [1.0, 1.0]
    quick, slow = per_turn(gigpo(), group(paths, rewards))
    assert quick[0] == pytest.approx(0.025)
    assert slow[0] == pytest.approx(-0.025)
    assert per_turn(gigpo(gamma=1), group(paths, rewards)) == [[0.0], [0.0, 0.0]]


def test_groups_are_compared_with_themselves_only():
    alone = per_turn(gigpo(), group())
    assert per_turn(gigpo(), group(), group(["s0 a s1 b s2"] * 2, [5.0, -5.0])) == alone


def test_tokens_that_came_to_no_action_get_the_advantage_of_their_trajectory():
    played = group(["s0 a s1", "s0 a s1"], [1.0, 0.0])
    played.trajectories[0].segments[0].spans.append(Span(3, [-1.0], 1))
    credits = gigpo().credit(Batch([played]))[0]
    assert [list(credit.advantages) for credit in credits] == [[1, 1, 0.5], [-1, -1]]


def test_trajectories_without_a_turn_are_compared_by_their_reward():
    played = Group(Task("t"), [make_walk("s0", 1.0), make_walk("s0 a s1", 0.0)])
    played.trajectories[0].segments[0].spans.append(Span(0, [-1.0], 0))
    for statistics in ("trajectory", "step"):
        credits = gigpo(statistics=statistics, norm="mean_std").credit(Batch([played]))[0]
        assert list(credits[0].advantages) == pytest.approx([0.707106], abs=1e-5)


def test_a_penalty_in_the_reward_is_discounted_from_the_turn_whose_tokens_it_is_for():
    algorithm = gigpo(gamma=0.5, kl="reward", kl_coefficient=0.1)
    played = group(["s0 a s1 b s2", "s0 a s1 c s2"], [1.0, 0.0])
    # x, the log-ratio to the reference, is 1 and 2 in the two turns of the first trajectory.
    batch = Batch([played], reference_logprobs=[[[-2.0, -1.0, -2.0, -2.0], [-1.0] * 4]])
    assert algorithm.returns(batch, 0, 0) == pytest.approx([-0.1 + 0.5 * 0.8, 0.8])
    credits = algorithm.credit(batch)[0]
    assert list(credits[0].advantages) == pytest.approx([0.35 + 0.15] * 2 + [0.35 + 0.4] * 2)


def test_what_is_compared_is_reported():
    batch = Batch([group(), group(["s0 a s1", "s9 b s1"], [1.0, 0.0], keys=False)])
    gigpo().credit(batch)
    # s0 and s1 hold four steps each, s2 three; s3, s4, s0 and s9 one.
    expected = {"anchored_steps": 11 / 15, "anchor_size": 15 / 7, "given_keys": 13 / 15}
    assert batch.logged == pytest.approx(expected)
    gigpo(keys="ignore").credit(batch)
    assert batch.logged["given_keys"] == 0


def test_states_are_told_by_key_or_by_text():
    played = group(["s0 a s1", "s0 a s1"], [1.0, 0.0])
    played.trajectories[0].turns[0] = Turn(Observation("in  S0", state_key="other"), Action("go"))
    alone, together = [[0.5], [-0.5]], [[1.0], [-1.0]]
    assert per_turn(gigpo(), played) == alone
    assert per_turn(gigpo(keys="ignore"), played) == together
    assert per_turn(gigpo(keys="ignore", match="exact"), played) == alone


def test_groups_are_needed_and_keys_where_they_are_required():
    assert gigpo().needs == {"groups"}
    assert gigpo(keys="require", kl="k2", kl_coefficient=0.1).needs == {"groups", "step_keys", "reference"}
    assert gigpo().skips_zero_advantage


# Properties

PATHS = st.lists(st.lists(st.sampled_from("abc"), max_size=12).map(" ".join), min_size=1, max_size=5)
SCORES = st.sampled_from([0.0, 1.0, 0.1, -0.7, 0.3])
OPTIONS = st.fixed_dictionaries(
    {"norm": st.sampled_from(["mean", "mean_std"]), "statistics": st.sampled_from(["trajectory", "step"])}
)


@st.composite
def groups(draw):
    paths = [path or "a" for path in draw(PATHS)]
    rewards = draw(st.lists(SCORES, min_size=len(paths), max_size=len(paths)))
    return group([path if len(path.split()) % 2 else f"{path} a" for path in paths], rewards)


@settings(deadline=None)
@given(groups(), OPTIONS)
def test_steps_of_an_anchor_group_sum_to_nothing(played, options):
    algorithm, batch = gigpo(**options), Batch([played])
    anchors = algorithm.anchors(played)
    returns = [algorithm.returns(batch, 0, member) for member in range(len(played.trajectories))]
    found = algorithm.step_advantages(returns, anchors)
    for places in anchors.values():
        assert sum(found[member][turn] for member, turn in places) == pytest.approx(0, abs=1e-8)


@settings(deadline=None)
@given(groups(), OPTIONS)
def test_permuting_the_trajectories_changes_nothing(played, options):
    algorithm = gigpo(**options)
    straight = per_turn(algorithm, played)
    turned = per_turn(algorithm, Group(played.task, played.trajectories[::-1]))[::-1]
    assert flat(turned) == pytest.approx(flat(straight), abs=1e-9)


@settings(deadline=None)
@given(groups(), OPTIONS, SCORES)
def test_equal_returns_teach_nothing_exactly(played, options, reward):
    for trajectory in played.trajectories:
        trajectory.reward = reward
    assert not any(flat(per_turn(gigpo(gamma=1, **options), played)))
    for trajectory in played.trajectories:
        trajectory.reward = 0.0
    assert not any(flat(per_turn(gigpo(**options), played)))
