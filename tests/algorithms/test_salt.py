"""SALT against the golden numbers, and the properties it promises."""

from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from agentrl import Action, Batch, Group, Observation, Span, Task, Turn, UsageError
from agentrl.testing import make_walk
from agentrl_salt import SALT
from agentrl_salt.embedding import cluster

# States, and the actions between them; the last state has no action.
GOLDEN = ["s0 a s1 b s2 c S", "s0 a s1 b s2 d F", "s0 a s1 x s3 c S", "s0 y s4 z s1 b s2 d F"]
REWARDS = [1.0, 0.0, 1.0, 0.0]
THIRD = 1 / 3
TRANSITIONS = [[THIRD, -THIRD, 1], [THIRD, -THIRD, -1], [THIRD, 1, 1], [-1, -1, -THIRD, -1]]
WITH_HISTORY = [[THIRD, 0, 1], [THIRD, 0, -1], [THIRD, 1, 1], [-1, -1, -1, -1]]


def salt(**options):
    return SALT(SALT.Config(**options))


def population(**options):
    return salt(normalisation="population", epsilon=0, **options)


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
    ("history", "expected"), [(0, TRANSITIONS), (1, WITH_HISTORY), (3, WITH_HISTORY), (None, WITH_HISTORY)]
)
def test_steps_have_the_golden_advantages(history, expected, keys):
    found = per_turn(population(history=history), group(keys=keys))
    assert flat(found) == pytest.approx(flat(expected))
    assert list(map(len, found)) == [3, 3, 3, 4]


@pytest.mark.parametrize(("history", "expected"), [(0, TRANSITIONS), (1, WITH_HISTORY), (3, WITH_HISTORY)])
def test_over_leave_one_out_they_are_two_thirds_of_it(history, expected):
    found = per_turn(salt(base="rloo", history=history))
    assert flat(found) == pytest.approx([2 / 3 * each for each in flat(expected)])


def test_an_action_that_leads_elsewhere_is_the_same_only_where_that_is_not_compared():
    paths = ["s0 a s1", "s0 a s2"]
    assert per_turn(population(), group(paths, [1.0, 0.0])) == [[1], [-1]]
    assert per_turn(population(include_next_state=False), group(paths, [1.0, 0.0])) == [[0], [0]]


def test_a_trajectory_that_comes_by_again_counts_again_or_once():
    circle = group(["s0 a s0 a s0", "s0 a s0"], [1.0, 0.0])
    assert flat(per_turn(population(), circle)) == pytest.approx([THIRD, THIRD, THIRD])
    assert per_turn(population(visit="first"), circle) == [[0, 0], [0]]


def test_groups_share_nothing():
    alone = per_turn(population(), group())
    assert per_turn(population(), group(), group(["s0 a s1 b s2"] * 2, [5.0, -5.0])) == alone


def test_tokens_that_came_to_no_action_keep_the_advantage_of_their_trajectory():
    played = group(["s0 a s1", "s0 a s1"], [1.0, 0.0])
    played.trajectories[0].segments[0].spans.append(Span(3, [-1.0], 1))
    credits = population().credit(Batch([played]))[0]
    assert [list(credit.advantages) for credit in credits] == [[0, 0, 1], [0, 0]]


def test_a_penalty_in_the_reward_is_taken_off_before_rewards_are_compared():
    algorithm = salt(base="rloo", kl="reward", kl_coefficient=0.1)
    played = group(["s0 a s1", "s0 b s1"], [1.0, 0.0])
    batch = Batch([played], reference_logprobs=[[[-2.0, -1.0], [-1.0, -1.0]]])
    found = flat(credit.advantages for credit in algorithm.credit(batch)[0])
    assert found == pytest.approx([0.9, 0.9, -0.9, -0.9])


def test_what_is_shared_is_reported():
    batch = Batch([group(), group(["s0 a s1", "s0 b s1"], [1.0, 0.0], keys=False)])
    salt().credit(batch)
    # Of 13 steps, a is walked by three, b by three, d by two; of 8 edges there, these are three.
    expected = {"merged_steps": 8 / 15, "merged_edges": 3 / 10, "given_keys": 13 / 15}
    assert batch.logged == pytest.approx(expected)
    salt(keys="ignore").credit(batch)
    assert batch.logged["given_keys"] == 0


# Which states and actions are the same


def test_texts_stand_in_for_keys_or_are_all_that_counts():
    def shared(state_keys, **options):
        played = group(["s0 a s1", "s0 a s1"], [1.0, 0.0], keys=False)
        for trajectory, key in zip(played.trajectories, state_keys, strict=True):
            trajectory.turns[0] = Turn(Observation("here", state_key=key), Action("go"))
        return per_turn(population(**options), played) == [[0], [0]]

    assert not shared(["one", "two"])
    assert shared(["one", "two"], keys="ignore")
    assert shared(["one", "one"], keys="require")
    assert not shared(["one", None])


def test_texts_are_compared_to_the_letter_or_without_what_differs_at_each_look():
    played = group(["s0 a s1", "s0 a s1"], [1.0, 0.0], keys=False)
    played.trajectories[0].turns[0] = Turn(Observation("in  S0"), Action("DO a"))
    assert per_turn(population(), played) == [[0], [0]]
    assert per_turn(population(match="exact"), played) == [[1], [-1]]


def test_keys_that_are_required_are_a_need():
    assert salt().needs == {"groups"}
    assert salt(keys="require", kl="k2", kl_coefficient=0.1).needs == {"groups", "step_keys", "reference"}


def directions(text):
    """Return a direction by the number that the text ends with, degrees."""
    torch = pytest.importorskip("torch")
    angle = torch.deg2rad(torch.tensor(float(text.rpartition(" ")[2])))
    return torch.stack([angle.cos(), angle.sin()])


def test_similar_texts_follow_the_nearest_of_those_before_them_in_the_alphabet():
    texts = ["d 20", "a 0", "c 14", "b 25"]
    assert cluster(texts, directions, 0.97) == {"a 0": "a 0", "b 25": "b 25", "c 14": "b 25", "d 20": "b 25"}
    assert cluster(texts[::-1], directions, 0.97) == cluster(texts, directions, 0.97)
    assert len(set(cluster(texts, directions, 1.0).values())) == 4
    assert set(cluster(texts, directions, 0.5).values()) == {"a 0"}


@pytest.fixture(scope="module")
def tiny():
    pytest.importorskip("transformers")
    import agentrl_tiny

    return str(Path(agentrl_tiny.__file__).parent / "checkpoint")


def test_embeddings_of_a_model_tell_which_texts_are_the_same(tiny):
    played = group(["s0 a s1", "s0 a s1"], [1.0, 0.0], keys=False)
    played.trajectories[0].turns[0] = Turn(Observation("In  S0"), Action("do a"))
    strict = population(match="embedding", embedding_model=tiny, threshold=1 - 1e-6)
    loose = population(match="embedding", embedding_model=tiny, threshold=-0.99)
    assert per_turn(strict, played) == [[0], [0]]
    far = group(["s0 a s1", "elsewhere sing a-long-way"], [1.0, 0.0], keys=False)
    assert per_turn(strict, far) == [[1], [-1]]
    assert per_turn(loose, far) == [[0], [0]]


def test_embeddings_change_nothing_when_trajectories_are_permuted(tiny):
    algorithm = population(match="embedding", embedding_model=tiny, threshold=0.8)
    straight, turned = group(keys=False), group(GOLDEN[::-1], REWARDS[::-1], keys=False)
    assert flat(per_turn(algorithm, turned)[::-1]) == pytest.approx(flat(per_turn(algorithm, straight)))


def test_an_empty_text_has_no_direction(tiny):
    played = group(["s0 a s1", "s0 a s1"], [1.0, 0.0], keys=False)
    played.trajectories[0].turns[0] = Turn(Observation(""), Action(""))
    assert per_turn(population(match="embedding", embedding_model=tiny), played) == [[1], [-1]]


def test_a_model_that_cannot_be_loaded_is_refused_before_anything_is_played(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(UsageError, match=r"embedding_model .* cannot be loaded"):
        salt(match="embedding", embedding_model=str(tmp_path))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"base": "rloo", "normalisation": "none"}, "go with base 'grpo'"),
        ({"base": "rloo", "epsilon": 0.0}, "go with base 'grpo'"),
        ({"match": "embedding"}, "needs an embedding_model"),
        ({"threshold": 0.5}, "go with match 'embedding'"),
        ({"match": "exact", "embedding_model": "m"}, "go with match 'embedding'"),
    ],
)
def test_options_that_another_makes_meaningless_are_refused(options, complaint):
    with pytest.raises(ValidationError, match=complaint):
        salt(**options)


def test_all_options_with_their_defaults_are_accepted_as_a_run_file_has_them():
    for config in (SALT.Config(), SALT.Config(base="rloo")):
        assert SALT.Config(**config.model_dump()) == config


# Properties

LETTERS = st.sampled_from("abc")
PATHS = st.lists(st.lists(LETTERS, max_size=12).map(" ".join), min_size=1, max_size=5)
HISTORIES = st.sampled_from([0, 1, 2, 5, None])
SCORES = st.sampled_from([0.0, 1.0, 0.1, -0.7, 0.3])


@st.composite
def groups(draw):
    paths = [path or "a" for path in draw(PATHS)]
    rewards = draw(st.lists(SCORES, min_size=len(paths), max_size=len(paths)))
    return group([path if len(path.split()) % 2 else f"{path} a" for path in paths], rewards)


@settings(deadline=None)
@given(groups(), HISTORIES, st.booleans())
def test_the_sum_over_steps_is_that_of_the_trajectories_own_advantages(played, history, next_state):
    algorithm = population(history=history, include_next_state=next_state)
    own = algorithm.advantages(played.rewards)
    lengths = [len(trajectory.turns) for trajectory in played.trajectories]
    expected = sum(length * advantage for length, advantage in zip(lengths, own, strict=True))
    assert sum(flat(per_turn(algorithm, played))) == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(groups(), HISTORIES, st.sampled_from(["every", "first"]))
def test_no_step_has_more_than_the_largest_advantage(played, history, visit):
    algorithm = population(history=history, visit=visit)
    largest = max(map(abs, algorithm.advantages(played.rewards)))
    assert all(abs(each) <= largest for each in flat(per_turn(algorithm, played)))


@settings(deadline=None)
@given(groups(), HISTORIES, st.sampled_from(["every", "first"]))
def test_where_nothing_is_shared_every_step_keeps_its_trajectorys_advantage(played, history, visit):
    algorithm = population(history=history, visit=visit)
    for number, trajectory in enumerate(played.trajectories):
        for place, turn in enumerate(trajectory.turns):
            trajectory.turns[place] = Turn(turn.observation, Action(f"{turn.action.text} {number}"))
    own = algorithm.advantages(played.rewards)
    expected = [[a] * len(t.turns) for a, t in zip(own, played.trajectories, strict=True)]
    assert per_turn(algorithm, played) == expected


@settings(deadline=None)
@given(groups(), st.integers(0, 4))
def test_more_history_only_refines_what_is_shared(played, history):
    coarse, fine, finest = (flat(salt(history=each).edges(played)) for each in (history, history + 1, None))
    for finer, coarser in ((fine, coarse), (finest, fine)):
        assert len(set(zip(finer, coarser, strict=True))) == len(set(finer))


@settings(deadline=None)
@given(groups())
def test_without_a_bound_steps_are_shared_by_common_prefixes_only(played):
    found = flat(salt(history=None).edges(played))
    prefixes = []
    for trajectory in played.trajectories:
        states = [*(turn.observation.text for turn in trajectory.turns), trajectory.final.text]
        actions = [turn.action.text for turn in trajectory.turns]
        prefixes += [(*states[: turn + 2], *actions[: turn + 1]) for turn in range(len(actions))]
    pairs = set(zip(found, prefixes, strict=True))
    assert len(pairs) == len(set(found)) == len(set(prefixes))


@settings(deadline=None)
@given(groups(), HISTORIES, st.randoms(use_true_random=False))
def test_permuting_the_trajectories_changes_nothing(played, history, random):
    algorithm = population(history=history)
    order = list(range(len(played.trajectories)))
    random.shuffle(order)
    straight = per_turn(algorithm, played)
    permuted = per_turn(algorithm, Group(played.task, [played.trajectories[place] for place in order]))
    assert permuted == [straight[place] for place in order]


@settings(deadline=None)
@given(groups(), HISTORIES, SCORES, st.sampled_from(["grpo", "rloo"]))
def test_equal_rewards_teach_nothing_exactly(played, history, reward, base):
    for trajectory in played.trajectories:
        trajectory.reward = reward
    assert not any(flat(per_turn(salt(base=base, history=history), played)))


@settings(deadline=None)
@given(st.lists(SCORES, min_size=1, max_size=7), st.floats(-3, 3))
def test_equal_advantages_stay_as_they_are(scores, advantage):
    algorithm = salt()
    paths = algorithm.edges(group(["s0 a s1 b s2"] * len(scores), scores))
    found = algorithm.edge_advantages(paths, [advantage] * len(scores))
    assert set(found.values()) == {advantage}
