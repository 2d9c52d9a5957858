"""GRPO against the golden numbers, and the properties its options promise."""

import pytest
import torch
from pydantic import ValidationError

from agentrl import Aggregation, Batch, Group, Segment, Span, Task, Tokens, Trajectory
from agentrl.aggregation import token_weights
from agentrl_grpo import GRPO

ONE_SUCCESS_IN_FOUR = [1.0, 0, 0, 1, 0, 0, 0, 0]


def grpo(**options):
    return GRPO(GRPO.Config(**options))


def tokens(ratios, advantages, reference=None):
    """Return tokens with the given ratios to the policy before the update."""
    logprobs = torch.tensor(ratios, dtype=torch.float64).log().requires_grad_()
    zeros = torch.zeros(len(ratios), dtype=torch.float64)
    places = torch.zeros(len(ratios), dtype=torch.long)
    columns = [torch.tensor(advantages, dtype=torch.float64), places, places]
    return Tokens(logprobs, zeros, zeros, *columns, 1, zeros, reference_logprobs=reference)


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
    assert grpo(normalisation=normalisation, epsilon=0).advantages(rewards) == [0.0] * len(rewards)


def test_every_sampled_token_gets_its_trajectorys_advantage():
    def played(reward, lengths):
        segments = [Segment([0] * 9, [Span(1, [-1.0] * length, 0)]) for length in lengths]
        return Trajectory(Task("t"), segments=segments, reward=reward)

    group = Group(Task("t"), [played(1, [2, 3]), played(0, [4]), played(0, [])])
    credits = grpo(normalisation="none").credit(Batch([group]))
    expected = [[2 / 3] * 5, [-1 / 3] * 4, []]
    for credit, advantages in zip(credits[0], expected, strict=True):
        assert list(credit.advantages) == pytest.approx(advantages)
        assert credit.returns is None


@pytest.mark.parametrize(
    ("advantage", "ratio", "loss", "dual"),
    [(1, 0.5, -0.5, -0.5), (1, 1.5, -1.28, -1.28), (-1, 0.5, 0.8, 0.8), (-1, 1.5, 1.5, 1.5), (-1, 5, 5, 3)],
)
def test_the_policy_loss_is_the_golden_one(advantage, ratio, loss, dual):
    assert grpo().loss(tokens([ratio], [advantage])).item() == pytest.approx(loss)
    assert grpo(dual_clip=3).loss(tokens([ratio], [advantage])).item() == pytest.approx(dual)


def test_clipped_tokens_have_no_gradient_and_are_counted():
    batch = tokens([0.5, 1.5, 0.5, 1.5], [1, 1, -1, -1])
    grpo().loss(batch).sum().backward()
    assert (batch.logprobs.grad != 0).tolist() == [True, False, False, True]
    assert batch.logged["clip_share"].tolist() == [0, 1, 1, 0]
    assert batch.logged["ratio"].tolist() == pytest.approx([0.5, 1.5, 0.5, 1.5])


def test_on_policy_the_gradient_is_that_of_the_policy_gradient():
    batch = tokens([1.0, 1.0], [0.7, -2.0])
    grpo().loss(batch).sum().backward()
    assert batch.logprobs.grad.tolist() == pytest.approx([-0.7, 2.0])


def test_absurd_ratios_stay_finite():
    batch = tokens([1.0], [-1])
    batch.old_logprobs = torch.tensor([-500.0], dtype=torch.float64)
    loss = grpo().loss(batch)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert batch.logprobs.grad.tolist() == [0]


GRADIENTS = {
    "k1": [0.0, 0.0, 0.0],
    "k2": [0.06135974, -0.21287221, 0.15151247],  # of KL(pi || ref)
    "k3": [0.10513080, -0.25639161, 0.15126081],  # of KL(ref || pi)
}


@pytest.mark.parametrize("form", ["k1", "k2", "k3"])
def test_the_kl_loss_leads_where_its_docstring_says(form):
    logits = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64, requires_grad=True)
    reference = torch.log_softmax(torch.tensor([0.0, 0.5, -0.5], dtype=torch.float64), 0)
    batch = tokens([1.0] * 3, [0.0] * 3, reference)
    batch.logprobs = torch.log_softmax(logits, 0)  # every action once, weighed by its probability
    batch.old_logprobs = batch.logprobs.detach()
    expected = (batch.logprobs.exp().detach() * grpo(kl_coefficient=1, kl_loss=form).loss(batch)).sum()
    expected.backward()
    assert logits.grad.tolist() == pytest.approx(GRADIENTS[form], abs=1e-8)
    value = 0.13975057 if form == "k2" else 0.14551693769
    assert expected.item() == pytest.approx(value, abs=1e-8)
    probabilities = batch.logprobs.exp().detach()
    assert (probabilities * batch.logged["kl"]).sum().item() == pytest.approx(0.14551693769, abs=1e-8)


def test_a_reference_and_all_trajectories_are_needed_only_for_a_penalty():
    assert grpo().needs == {"groups"}
    assert grpo(kl_coefficient=0.001).needs == {"groups", "reference"}
    assert grpo().skips_zero_advantage
    assert not grpo(kl_coefficient=0.001).skips_zero_advantage
    assert "kl" not in tokens_after_loss(grpo()).logged


def tokens_after_loss(algorithm):
    batch = tokens([1.0], [1.0])
    algorithm.loss(batch)
    return batch


@pytest.mark.parametrize(
    ("mode", "length", "expected"),
    [
        ("token-mean", None, 10 / 6),
        ("seq-mean-token-mean", None, 2),
        ("seq-mean-token-sum", None, 5),
        ("constant", 4, 1.25),
    ],
)
def test_the_aggregations_are_the_golden_ones(mode, length, expected):
    algorithm = grpo(aggregation=mode, length=length)
    assert algorithm.aggregation == Aggregation(mode, length)
    losses = [[1, 1, 1, 1], [3, 3], []]
    weights = token_weights([len(row) for row in losses], algorithm.aggregation)
    assert sum(w * sum(row) for w, row in zip(weights, losses, strict=True)) == pytest.approx(expected)


@pytest.mark.parametrize("options", [{"aggregation": "constant"}, {"length": 5}, {"clip": 0.2}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ValidationError):
        GRPO.Config(**options)
