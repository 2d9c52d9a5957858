"""What an update does and reports, what takes no part in it, and what stops it."""

import math
from dataclasses import replace

import pytest
import torch

from agentrl import AgentRLError, Aggregation, Credit, Segment, Trajectory, UsageError
from agentrl.interfaces import Resources
from agentrl_torch import TorchTrainer
from small_training import (
    VOCABULARY,
    Probe,
    Skipping,
    assert_same_bits,
    play,
    play_with,
    run,
    segments_of,
    trainer_for,
    weights_of,
)


def test_an_update_reports_what_it_did(folder):
    (metrics,) = run(trainer_for(folder), [0])
    assert metrics["trainer/learning_rate"] == 1e-2
    assert metrics["trainer/tokens"] == sum(s.sampled for s in segments_of(play()))
    assert metrics["trainer/sharing"] > 1
    assert metrics["trainer/context_tokens"] / metrics["trainer/unique_tokens"] == metrics["trainer/sharing"]
    assert metrics["trainer/grad_norm"] > 0
    assert math.isfinite(metrics["trainer/loss"])
    assert 0 < metrics["policy/entropy"] < math.log(VOCABULARY)
    assert 0 < metrics["policy/turns"] < 2
    assert metrics["policy/ratio_min"] == pytest.approx(1, abs=1e-4)
    assert metrics["policy/ratio_max"] == pytest.approx(1, abs=1e-4)
    assert 0 < metrics["audit/max_logprob_difference"] < 1e-4


def test_an_update_in_which_nothing_is_taught_moves_like_a_zero_gradient(folder):
    class Silent(Skipping):
        def credit(self, batch):
            return [[Credit([0.0] * t.sampled) for t in group.trajectories] for group in batch.groups]

    class Computed(Silent):
        skips_zero_advantage = False

    skipping, computing = trainer_for(folder), trainer_for(folder)
    for trainer, algorithm in ((skipping, Silent()), (computing, Computed())):
        run(trainer, [0])
        (metrics,) = run(trainer, [1], algorithm)
        assert metrics["trainer/grad_norm"] == metrics["trainer/loss"] == 0
        assert metrics["trainer/skipped"] == algorithm.skips_zero_advantage
    assert_same_bits(skipping.weights(), computing.weights())


def test_updates_are_the_same_to_the_bit(folder):
    first, second = trainer_for(folder), trainer_for(folder)
    assert run(first, [0, 1]) == run(second, [0, 1])
    assert_same_bits(first.weights(), second.weights())


def test_failed_and_silent_trajectories_take_no_part(folder):
    trainer = trainer_for(folder)
    groups = play_with(trainer)
    groups[0].trajectories[0].stop = "error"
    groups[1].trajectories.append(Trajectory(groups[1].task, segments=[Segment([1, 2])]))
    for failed in groups[2].trajectories:
        failed.stop = "error"
    batch = trainer.prepare(groups, frozenset())
    assert [len(group.trajectories) for group in batch.groups] == [2, 4]
    algorithm = Probe()
    trained = trainer.update(batch, algorithm.credit(batch), algorithm)["trainer/tokens"]
    assert trained == sum(t.sampled for group in batch.groups for t in group.trajectories)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1, 1, 0.853553, 0.5, 0.146447]),
    ],
)
def test_the_learning_rate_follows_its_schedule(folder, schedule, rates):
    trainer = TorchTrainer(
        TorchTrainer.Config(learning_rate=1.0, schedule=schedule, warmup_steps=2, max_grad_norm=1e-9)
    )
    trainer.start(folder, frozenset(), 6, Resources())
    trainer.config = trainer.config.model_copy(update={"audit_threshold": 1e9})
    metrics = run(trainer, [0] * 6)
    assert [m["trainer/learning_rate"] for m in metrics] == pytest.approx(rates, abs=1e-6)


def test_fast_and_plain_kernels_train_alike(folder):
    fast, plain = trainer_for(folder), trainer_for(folder, kernels="plain")
    one, two = run(fast, [0]), run(plain, [0])
    assert one[0]["trainer/loss"] == pytest.approx(two[0]["trainer/loss"], rel=1e-4)
    assert one[0]["trainer/grad_norm"] == pytest.approx(two[0]["trainer/grad_norm"], rel=1e-4)


def test_bfloat16_trains_weights_that_stay_in_float32(folder):
    trainer = trainer_for(folder, dtype="bfloat16")
    (metrics,) = run(trainer, [0])
    assert {tensor.dtype for tensor in trainer.weights().values()} == {torch.float32}
    assert 1e-4 < metrics["audit/max_logprob_difference"] < 0.5


class Broken(Probe):
    """A loss that goes wrong in one of several ways."""

    def loss(self, tokens):
        logprobs = tokens.logprobs
        match self.mode:
            case "nan":
                return logprobs * math.nan
            case "gradient":
                return (logprobs - logprobs.detach()).abs().sqrt()  # its slope at 0 is infinite
            case "shape":
                return logprobs.sum()
        raise AssertionError(self.mode)

    @property
    def aggregation(self):
        return Aggregation()


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("nan", r"update 1: the loss is not finite \(tasks 'task-0', 'task-1', 'task-2'\)"),
        ("gradient", "update 1: the actor's gradient is nan"),
        ("shape", r"Broken\.loss returned the shape \(\)"),
    ],
)
def test_a_broken_loss_stops_the_run_and_writes_nothing(folder, mode, message):
    trainer = trainer_for(folder)
    before = weights_of(trainer)
    with pytest.raises(AgentRLError, match=message):
        run(trainer, [0], Broken(mode))
    assert_same_bits(before, weights_of(trainer))
    clean = trainer_for(folder)
    assert run(trainer, [0]) == run(clean, [0])  # no gradient is left over
    assert_same_bits(clean.weights(), trainer.weights())


def test_credit_that_does_not_fit_the_tokens_is_refused(folder):
    trainer = trainer_for(folder)
    batch = trainer.prepare(play_with(trainer), frozenset())
    good = Probe().credit(batch)
    with pytest.raises(AgentRLError, match="one Credit for each trajectory"):
        trainer.update(batch, good[:-1], Probe())
    wrong = [[Credit([0.0, 0.0]) for _ in members] for members in good]
    with pytest.raises(AgentRLError, match="gave 2 numbers to a trajectory of task 'task-0'"):
        trainer.update(batch, wrong, Probe())
    mixed = [list(members) for members in good]
    mixed[0][0] = replace(mixed[0][0], returns=mixed[0][0].advantages)
    with pytest.raises(AgentRLError, match="gave returns to some trajectories only"):
        trainer.update(batch, mixed, Probe())


def test_an_update_with_nothing_to_train_on_is_refused(folder):
    trainer = trainer_for(folder)
    with pytest.raises(UsageError, match="nothing to train on"):
        trainer.update(trainer.prepare([], frozenset()), [], Probe())
