"""Training on the trie equals training on one sequence at a time."""

import copy
import math
from itertools import chain

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import (
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from agentrl import Batch, Tokens, UsageError
from agentrl.aggregation import token_weights
from agentrl_torch import adaptation, attention, forward, micro_batch
from agentrl_torch.metrics import Tally
from agentrl_torch.update import Step
from small_training import SIZE, VOCABULARY, Probe, Skipping, make_model, play, sequence_logprobs

MODES = ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "constant"]


def naive_gradient(model, groups, algorithm):
    """Return loss and gradients, computed without trie, packing or micro-batches."""
    trajectories = [t for group in groups for t in group.trajectories]
    credits = list(chain(*algorithm.credit(Batch(groups))))
    weights = token_weights([t.sampled for t in trajectories], algorithm.aggregation)
    model.zero_grad()
    total = torch.zeros((), dtype=model.dtype)
    for trajectory, credit, weight in zip(trajectories, credits, weights, strict=True):
        logprobs = torch.cat([sequence_logprobs(model, part) for part in trajectory.segments])
        rollout = torch.tensor([x for span in trajectory.spans for x in span.logprobs], dtype=model.dtype)
        turn = torch.tensor([span.turn for span in trajectory.spans for _ in span.logprobs])
        advantages = torch.tensor(list(credit.advantages), dtype=model.dtype)
        tokens = Tokens(logprobs, rollout, rollout, advantages, turn * 0, turn, 1, logprobs.detach())
        total = total + weight * algorithm.loss(tokens).sum()
    total.backward()
    return float(total.detach()), {name: p.grad.clone() for name, p in model.named_parameters()}


def trie_gradient(model, groups, algorithm, budget=10**6, way=attention.FLASH):
    """Return loss and gradients of a copy of `model`, computed as the trainer does."""
    model = copy.deepcopy(model)
    adaptation.use_trie(model, way)
    batch = Batch(groups)
    step = Step(
        forward.Policy(model), model.dtype, budget, algorithm, batch, algorithm.credit(batch), True, 1
    )
    loss = step.accumulate(micro_batch.encode(groups), Tally(), None)
    return loss, {name: p.grad for name, p in model.named_parameters()}


def assert_equal_gradients(left, right, relative=1e-9):
    assert left[0] == pytest.approx(right[0], rel=relative)
    norm = math.sqrt(sum(float(g.square().sum()) for g in right[1].values()))
    gap = math.sqrt(sum(float((left[1][n] - g).square().sum()) for n, g in right[1].items()))
    assert gap <= relative * norm


@pytest.mark.parametrize("way", [attention.PLAIN, attention.FLASH])
@pytest.mark.parametrize("mode", MODES)
def test_trie_training_equals_one_sequence_at_a_time(mode, way):
    model = make_model(Qwen2Config(**SIZE), torch.float64)
    groups, algorithm = play(), Probe(mode)
    expected = naive_gradient(model, groups, algorithm)
    assert_equal_gradients(trie_gradient(model, groups, algorithm, way=way), expected)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(0, 10**6),
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(1, 12),
    st.integers(1, 4),
    st.sampled_from([1, 20, 60, 10**6]),
    st.sampled_from(MODES),
)
def test_trie_training_equals_one_sequence_at_a_time_whatever_is_played(
    seed, tasks, size, prompt, turns, budget, mode
):
    model = make_model(Qwen2Config(**SIZE, tie_word_embeddings=bool(seed % 2)), torch.float64)
    groups, algorithm = play(seed, tasks, size, prompt, turns), Probe(mode)
    expected = naive_gradient(model, groups, algorithm)
    assert_equal_gradients(trie_gradient(model, groups, algorithm, budget), expected)


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SIZE),
        Qwen3Config(**SIZE, head_dim=8),
        MistralConfig(**SIZE, sliding_window=None),
        CohereConfig(**SIZE, logit_scale=0.5),
        GraniteConfig(**SIZE, logits_scaling=3.0, attention_multiplier=0.2),
        GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=VOCABULARY, n_positions=128),
    ],
    ids=lambda config: config.model_type,
)
def test_any_causal_model_trains_exactly(config):
    model = make_model(config, torch.float64)
    groups, algorithm = play(tasks=2), Probe()
    found, expected = trie_gradient(model, groups, algorithm), naive_gradient(model, groups, algorithm)
    assert_equal_gradients(found, expected, relative=1e-6)  # some families round to float32 inside


@pytest.mark.parametrize(
    "config",
    [MistralConfig(**SIZE, sliding_window=64), Gemma2Config(**SIZE, head_dim=8, sliding_window=64)],
    ids=lambda config: config.model_type,
)
def test_models_that_do_not_see_everything_are_refused(config):
    with pytest.raises(UsageError, match="shared prefixes"):
        adaptation.use_trie(make_model(config))


def test_a_model_that_computes_something_else_is_refused(monkeypatch):
    model = make_model(Qwen2Config(**SIZE))
    monkeypatch.setattr(forward, "project", lambda model, hidden: model.lm_head(hidden) * 1.1)
    with pytest.raises(UsageError, match="computes something else on shared prefixes"):
        adaptation.use_trie(model)


@pytest.mark.parametrize("budget", [1, 30, 100])
def test_micro_batches_add_up_to_the_whole(budget):
    model, groups, algorithm = make_model(Qwen2Config(**SIZE), torch.float64), play(), Probe()
    assert_equal_gradients(
        trie_gradient(model, groups, algorithm, budget), trie_gradient(model, groups, algorithm)
    )


def test_projecting_piece_by_piece_changes_nothing(monkeypatch):
    model, groups, algorithm = make_model(Qwen2Config(**SIZE), torch.float64), play(), Probe()
    whole = trie_gradient(model, groups, algorithm)
    monkeypatch.setattr(forward, "LOGITS", 5 * VOCABULARY)
    assert_equal_gradients(trie_gradient(model, groups, algorithm), whole)


def test_gradient_checkpointing_changes_nothing():
    model, groups, algorithm = make_model(Qwen2Config(**SIZE), torch.float64), play(), Probe()
    whole = trie_gradient(model, groups, algorithm)
    adaptation.keep_no_activations(model)
    assert_equal_gradients(trie_gradient(model, groups, algorithm), whole)


@pytest.mark.parametrize("mode", MODES)
def test_trajectories_that_teach_nothing_are_skipped_exactly(mode):
    model, groups = make_model(Qwen2Config(**SIZE), torch.float64), play()
    expected = naive_gradient(model, groups, Skipping(mode))
    assert_equal_gradients(trie_gradient(model, groups, Skipping(mode)), expected)
