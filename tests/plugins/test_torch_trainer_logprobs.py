"""Log-probabilities that come from the engine: recomputed, audited, and compared with a reference."""

import asyncio
import math
from dataclasses import replace

import pytest
import torch

from agentrl import AgentRLError, Group, Sampling, Segment, Span, Task, Trajectory, UsageError
from agentrl.interfaces import Resources
from agentrl_torch import TorchEngine, TorchTrainer
from small_training import (
    Probe,
    assert_same_bits,
    learn,
    play,
    play_with,
    prepare_and_update,
    run,
    segments_of,
    trainer_for,
    weights_of,
)


def test_the_engines_logprobs_and_recomputed_ones_train_alike(folder):
    options = {"dtype": "float64", "minibatches": 2, "epochs": 2}
    trusted = trainer_for(folder, **options)
    recomputed = trainer_for(folder, **options, old_logprobs="recompute")
    one, two = run(trusted, [0]), run(recomputed, [0])
    assert one[0]["trainer/loss"] == pytest.approx(two[0]["trainer/loss"], rel=1e-9)
    for name, tensor in trusted.weights().items():
        torch.testing.assert_close(tensor, recomputed.weights()[name], rtol=1e-8, atol=1e-10)


def test_recomputed_logprobs_are_in_the_batch_if_an_update_makes_several_steps(folder):
    trainer = trainer_for(folder, epochs=2, old_logprobs="recompute")
    groups = play_with(trainer)
    batch = trainer.prepare(groups, frozenset())
    for group, facts in zip(groups, batch.logprobs, strict=True):
        for trajectory, logprobs in zip(group.trajectories, facts, strict=True):
            reported = [x for span in trajectory.spans for x in span.logprobs]
            assert logprobs == pytest.approx(reported, abs=1e-4)
    assert trainer_for(folder).prepare(groups, frozenset()).logprobs is None


def test_the_reference_stays_the_model_that_was_loaded(folder):
    trainer = TorchTrainer(TorchTrainer.Config(learning_rate=0.1))
    trainer.start(folder, frozenset({"reference"}), 10, Resources())
    groups = play_with(trainer)
    before = trainer.prepare(groups, frozenset({"reference"})).reference_logprobs
    (metrics,) = run(trainer, [0])
    assert metrics["trainer/grad_norm"] > 0
    assert trainer.prepare(groups, frozenset({"reference"})).reference_logprobs == before
    with pytest.raises(UsageError, match="started without a reference"):
        trainer_for(folder).prepare(groups, frozenset({"reference"}))


# The audit


@pytest.mark.parametrize("options", [{}, {"epochs": 2, "old_logprobs": "recompute"}])
def test_the_audit_stops_an_update_on_a_token_that_engine_and_trainer_see_differently(folder, options):
    trainer = trainer_for(folder, **options)
    groups = play_with(trainer)
    groups[1].trajectories[2].segments[0].spans[1].logprobs[0] -= 0.5
    before = weights_of(trainer)
    with pytest.raises(AgentRLError, match=r"by 0\.5 nats \(task 'task-1', turn 1.*audit_threshold"):
        prepare_and_update(trainer, groups)
    assert_same_bits(before, weights_of(trainer))
    metrics = prepare_and_update(trainer_for(folder, audit_threshold=1.0), groups)
    assert metrics["audit/max_logprob_difference"] == pytest.approx(0.5, abs=1e-3)


def test_tokens_that_no_model_sampled_are_not_audited_and_have_ratio_one(folder):
    trainer = trainer_for(folder)
    groups = play()
    for part in segments_of(groups):
        part.spans = [replace(span, logprobs=[math.nan] * len(span.logprobs)) for span in part.spans]
    batch = trainer.prepare(groups, frozenset())
    metrics = trainer.update(batch, Probe().credit(batch), Probe())
    assert metrics["policy/ratio_min"] == metrics["policy/ratio_max"] == 1
    assert not any(name.startswith("audit") for name in metrics)


@pytest.mark.parametrize("options", [{}, {"minibatches": 2, "old_logprobs": "recompute"}])
def test_tokens_that_older_weights_sampled_are_not_audited(folder, options):
    trainer, algorithm = trainer_for(folder, **options), Probe()
    groups = play_with(trainer)
    *older, newest = [span for trajectory in groups[0].trajectories for span in trajectory.spans]
    for span in older:
        span.version, span.logprobs = 6, [logprob - 1 for logprob in span.logprobs]
    for span in (newest, *(span for t in groups[1].trajectories for span in t.spans)):
        span.version = 7
    with pytest.raises(AgentRLError, match="disagree about a token by 1 nats"):
        prepare_and_update(trainer_for(folder, **options), groups)
    metrics = learn(trainer, trainer.prepare(groups, algorithm.needs, 7))
    assert 0 <= metrics["audit/max_logprob_difference"] < 1e-4
    newest.logprobs, again = [logprob - 1 for logprob in newest.logprobs], trainer_for(folder, **options)
    with pytest.raises(AgentRLError, match="disagree about a token by 1 nats"):
        learn(again, again.prepare(groups, algorithm.needs, 7))


async def ask_twice(engine, prompt, seed):
    """Play two turns with the engine, each time at another temperature, and return the trajectory."""
    trajectory = Trajectory(Task("round trip"), segments=[Segment(list(prompt))], reward=float(seed))
    part = trajectory.segments[0]
    for turn in range(2):
        sampling = Sampling(
            temperature=(0.5, 1.5, 1, 0)[(seed + turn) % 4], max_tokens=5, seed=10 * seed + turn
        )
        completion = await engine.generate(part.token_ids, sampling, f"session {seed}")
        span = Span(len(part.token_ids), completion.logprobs, turn, temperature=completion.temperature)
        part.spans.append(span)
        part.token_ids += [*completion.token_ids, 7, 8]
    return trajectory


def test_what_the_engine_samples_passes_the_audit_update_after_update(folder):
    trainer, engine = trainer_for(folder), TorchEngine()

    async def play_and_train():
        await engine.start(folder, Resources())
        found = []
        for version in range(3):
            await engine.load_weights(trainer.weights(), version)
            played = await asyncio.gather(*(ask_twice(engine, [3, 4, 5], seed) for seed in range(4)))
            found.append(prepare_and_update(trainer, [Group(played[0].task, played)]))
        await engine.close()
        return found

    for metrics in asyncio.run(play_and_train()):
        assert metrics["audit/max_logprob_difference"] < 1e-3
        assert metrics["trainer/grad_norm"] > 0
