"""The clipped loss, the KL penalties and the correction against the golden numbers."""

import pytest
import torch
from pydantic import ValidationError

from agentrl import Aggregation, Batch, Credit, PolicyGradient, Tokens
from agentrl.aggregation import token_weights


class Plain(PolicyGradient):
    def credit(self, batch: Batch) -> list[list[Credit]]:
        raise NotImplementedError


def plain(**options):
    return Plain(Plain.Config(**options))


def tokens(ratios, advantages, reference=None):
    """Return tokens with the given ratios to the policy before the update."""
    logprobs = torch.tensor(ratios, dtype=torch.float64).log().requires_grad_()
    zeros = torch.zeros(len(ratios), dtype=torch.float64)
    places = torch.zeros(len(ratios), dtype=torch.long)
    columns = [torch.tensor(advantages, dtype=torch.float64), places, places]
    return Tokens(logprobs, zeros, zeros, *columns, 1, zeros, reference_logprobs=reference)


@pytest.mark.parametrize(
    ("advantage", "ratio", "loss", "dual"),
    [(1, 0.5, -0.5, -0.5), (1, 1.5, -1.28, -1.28), (-1, 0.5, 0.8, 0.8), (-1, 1.5, 1.5, 1.5), (-1, 5, 5, 3)],
)
def test_the_policy_loss_is_the_golden_one(advantage, ratio, loss, dual):
    assert plain().loss(tokens([ratio], [advantage])).item() == pytest.approx(loss)
    assert plain(dual_clip=3).loss(tokens([ratio], [advantage])).item() == pytest.approx(dual)


def test_clipped_tokens_have_no_gradient_and_are_counted():
    batch = tokens([0.5, 1.5, 0.5, 1.5], [1, 1, -1, -1])
    plain().loss(batch).sum().backward()
    assert (batch.logprobs.grad != 0).tolist() == [True, False, False, True]
    assert batch.logged["clip_share"].tolist() == [0, 1, 1, 0]
    assert batch.logged["ratio"].tolist() == pytest.approx([0.5, 1.5, 0.5, 1.5])


def test_on_policy_the_gradient_is_that_of_the_policy_gradient():
    batch = tokens([1.0, 1.0], [0.7, -2.0])
    plain().loss(batch).sum().backward()
    assert batch.logprobs.grad.tolist() == pytest.approx([-0.7, 2.0])


def test_absurd_ratios_stay_finite():
    batch = tokens([1.0], [-1])
    batch.old_logprobs = torch.tensor([-500.0], dtype=torch.float64)
    loss = plain().loss(batch)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert batch.logprobs.grad.tolist() == [0]


GRADIENTS = {
    "straight-through": [0.06135974, -0.21287221, 0.15151247],  # that of k2
    "k1": [0.0, 0.0, 0.0],
    "k2": [0.06135974, -0.21287221, 0.15151247],  # of KL(pi || ref)
    "k3": [0.10513080, -0.25639161, 0.15126081],  # of KL(ref || pi)
}


@pytest.mark.parametrize("form", [*GRADIENTS])
def test_the_kl_loss_leads_where_its_docstring_says(form):
    logits = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64, requires_grad=True)
    reference = torch.log_softmax(torch.tensor([0.0, 0.5, -0.5], dtype=torch.float64), 0)
    batch = tokens([1.0] * 3, [0.0] * 3, reference)
    batch.logprobs = torch.log_softmax(logits, 0)  # every action once, weighed by its probability
    batch.old_logprobs = batch.logprobs.detach()
    expected = (batch.logprobs.exp().detach() * plain(kl=form, kl_coefficient=1).loss(batch)).sum()
    expected.backward()
    assert logits.grad.tolist() == pytest.approx(GRADIENTS[form], abs=1e-8)
    value = 0.13975057 if form == "k2" else 0.14551693769
    assert expected.item() == pytest.approx(value, abs=1e-8)
    probabilities = batch.logprobs.exp().detach()
    assert (probabilities * batch.logged["kl"]).sum().item() == pytest.approx(0.14551693769, abs=1e-8)


def test_a_reference_and_all_trajectories_are_needed_only_for_a_penalty():
    assert plain().needs == frozenset()
    assert plain(kl="k2", kl_coefficient=0.001).needs == {"reference"}
    assert plain(kl="reward", kl_coefficient=0.001).needs == {"reference", "logprobs"}
    assert plain(kl="reward", kl_coefficient=0.001).skips_zero_advantage
    assert not plain(kl="k2", kl_coefficient=0.001).skips_zero_advantage
    assert "kl" not in tokens_after_loss(plain()).logged


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
    algorithm = plain(aggregation=mode, length=length)
    assert algorithm.aggregation == Aggregation(mode, length)
    losses = [[1, 1, 1, 1], [3, 3], []]
    weights = token_weights([len(row) for row in losses], algorithm.aggregation)
    assert sum(w * sum(row) for w, row in zip(weights, losses, strict=True)) == pytest.approx(expected)


def mismatched(ratios, advantages=None):
    """Return one trajectory whose tokens the trainer finds so much likelier than the engine did."""
    batch = tokens([1.0] * len(ratios), advantages or [-1.0] * len(ratios))
    batch.rollout_logprobs = -torch.tensor(ratios, dtype=torch.float64).log()
    return batch


@pytest.mark.parametrize(
    ("correction", "expected"),
    [("none", [1, 1, 1, 1]), ("token", [0.5, 1, 2, 2]), ("sequence", [2, 2, 2, 2])],
)
def test_the_correction_is_the_golden_one(correction, expected):
    batch = mismatched([0.5, 1, 3, 8])
    loss = plain(correction=correction).loss(batch)
    assert loss.tolist() == pytest.approx(expected)
    loss.sum().backward()
    assert batch.logprobs.grad.tolist() == pytest.approx(expected)


def test_a_sequence_is_weighed_by_the_product_over_its_tokens():
    assert plain(correction="sequence", correction_cap=100).loss(mismatched([0.5, 1, 3, 8])).tolist() == (
        pytest.approx([12.0] * 4)
    )


@pytest.mark.parametrize(("bound", "kept"), [(1.87, True), (1.86, False)])
def test_trajectories_are_rejected_by_the_geometric_mean(bound, kept):
    for ratios in ([0.5, 1, 3, 8], [2, 1, 1 / 3, 1 / 8]):  # 1.861210 and its inverse
        batch = mismatched(ratios)
        assert bool(plain(reject_above=bound).loss(batch).any()) is kept
        assert batch.logged["rejected"].tolist() == [not kept] * 4


def test_where_the_engine_is_trusted_nothing_is_corrected_twice():
    batch = mismatched([0.5, 1, 3, 8])
    batch.old_logprobs = batch.rollout_logprobs
    batch.logprobs = batch.rollout_logprobs.clone().requires_grad_()
    assert plain(correction="token").correction_weights(batch).tolist() == [1.0] * 4


def test_tokens_that_no_engine_sampled_are_not_corrected():
    batch = mismatched([0.5, 4.0])
    batch.rollout_logprobs[1] = float("nan")
    assert plain(correction="token").correction_weights(batch).tolist() == pytest.approx([0.5, 1.0])


def test_a_correction_needs_the_trainers_own_probabilities():
    assert plain(correction="token").needs == {"logprobs"}
    assert plain(reject_above=2).needs == {"logprobs"}


@pytest.mark.parametrize(
    "options",
    [
        {"aggregation": "constant"},
        {"length": 5},
        {"clip": 0.2},
        {"kl": "k2"},
        {"kl_coefficient": 0.1},
        {"kl": "reward", "kl_coefficient": float("inf")},
        {"correction_cap": 3},
    ],
)
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ValidationError):
        Plain.Config(**options)
