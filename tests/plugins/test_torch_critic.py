"""The critic on the trie: its values, its gradient, its warm-up, and that it resumes."""

import math
import random
import shutil

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from agentrl import Batch, Credit, Group, Segment, Span, Task, Trajectory, UsageError
from agentrl.interfaces import Resources
from agentrl_grpo import GRPO
from agentrl_ppo import PPO
from agentrl_tiny.tokenizer import build_tokenizer
from agentrl_torch import TorchTrainer
from agentrl_torch.critic import CriticConfig, explained_variance
from agentrl_torch.metrics import Tally

torch.set_num_threads(1)

NEEDS = frozenset({"values"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    tokenizer = build_tokenizer()
    torch.manual_seed(3)
    config = LlamaConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=24,
        vocab_size=len(tokenizer),
        max_position_embeddings=128,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def trainer_for(folder, steps=1000, **options):
    trainer = TorchTrainer(
        TorchTrainer.Config(**{"learning_rate": 1e-3, "audit_threshold": 1e9, "dtype": "float64", **options})
    )
    trainer.start(folder, NEEDS, steps, Resources())
    return trainer


def play(seed=0):
    """Return two groups of three trajectories with two turns each; only some earn something."""
    rng = random.Random(seed)
    groups = []
    for name in ("one", "two"):
        prompt = [rng.randrange(10, 60) for _ in range(5)]
        members = []
        for _ in range(3):
            ids, spans = list(prompt), []
            for turn in range(2):
                length = rng.randrange(1, 4)
                spans.append(Span(len(ids), [-4.0] * length, turn))
                ids += [rng.randrange(10, 60) for _ in range(length + 2)]
            members.append(Trajectory(Task(name), segments=[Segment(ids, spans)], reward=rng.random()))
        groups.append(Group(Task(name), members))
    return groups


def update(trainer, algorithm, seed=0):
    batch = trainer.prepare(play(seed), algorithm.needs)
    return trainer.update(batch, algorithm.credit(batch), algorithm)


def bits(trainer):
    return {name: tensor.clone() for name, tensor in trainer.weights().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


NO_WARMUP = {"warmup_updates": 0}


@pytest.mark.parametrize("backbone", ["separate", "shared"])
def test_values_are_those_of_each_sequence_alone(folder, backbone):
    trainer = trainer_for(folder, critic={"backbone": backbone})
    torch.nn.init.normal_(trainer.training.critic.head.weight)
    groups = play()
    values = trainer.prepare(groups, NEEDS).values
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float64)
    for group, rows in zip(groups, values, strict=True):
        for trajectory, found in zip(group.trajectories, rows, strict=True):
            segment = trajectory.segments[0]
            hidden = model.model(torch.tensor([segment.token_ids])).last_hidden_state[0]
            alone = trainer.training.critic.head(hidden).squeeze(-1)
            places = [at - 1 for span in segment.spans for at in range(span.start, span.stop)]
            assert found == pytest.approx(alone[places].tolist(), rel=1e-9)


def test_an_untrained_critic_says_nothing(folder):
    values = trainer_for(folder).prepare(play(), NEEDS).values
    assert {value for members in values for row in members for value in row} == {0.0}


def test_the_critics_gradient_is_that_of_each_sequence_alone(folder):
    trainer, algorithm = trainer_for(folder, critic=NO_WARMUP), PPO(PPO.Config(value_clip=None))
    torch.nn.init.normal_(trainer.training.critic.head.weight)
    batch = trainer.prepare(play(), NEEDS)
    credits = algorithm.credit(batch)
    step = trainer.training.step(batch, credits, algorithm)
    step.accumulate(batch.minibatches[0], Tally(), None)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float64)
    count = sum(t.sampled for group in batch.groups for t in group.trajectories)
    total = torch.zeros((), dtype=torch.float64)
    head = trainer.training.critic.head
    for group, members in zip(batch.groups, credits, strict=True):
        for trajectory, credit in zip(group.trajectories, members, strict=True):
            segment = trajectory.segments[0]
            hidden = model.model(torch.tensor([segment.token_ids])).last_hidden_state[0]
            places = [at - 1 for span in segment.spans for at in range(span.start, span.stop)]
            value = torch.nn.functional.linear(hidden, head.weight.detach(), head.bias.detach()).squeeze(-1)
            target = torch.tensor(credit.returns, dtype=torch.float64)
            total = total + ((value[places] - target) ** 2).sum() / 2 / count
    total.backward()
    own = dict(trainer.training.critic.backbone.model.named_parameters())
    for name, parameter in model.model.named_parameters():
        # The norms of this family round to float32.
        gap = (own[name].grad - parameter.grad).abs().max()
        assert gap <= 1e-6 * parameter.grad.abs().max(), name


def test_during_warm_up_only_the_critic_learns(folder):
    trainer = trainer_for(folder, critic={"warmup_updates": 3, "warmup_until": 1})
    before, algorithm = bits(trainer), PPO()
    for number in range(3):
        found = update(trainer, algorithm)
        assert found["critic/warm"] == 0
        assert found["critic/grad_norm"] > 0
        assert "trainer/grad_norm" not in found
        assert same(before, bits(trainer)), number
    found = update(trainer, algorithm)
    assert found["critic/warm"] == 1
    assert not same(before, bits(trainer))


def test_an_algorithm_without_values_leaves_the_critic_alone(folder):
    trainer = trainer_for(folder)
    actor, critic = bits(trainer), {k: v.clone() for k, v in trainer.training.critic.state_dict().items()}
    found = update(trainer, GRPO())
    assert "critic/grad_norm" not in found
    assert not same(actor, bits(trainer))
    assert same(critic, trainer.training.critic.state_dict())


@pytest.mark.parametrize("backbone", ["separate", "shared"])
def test_activations_need_not_be_kept(folder, backbone):
    found = []
    for checkpointing in (False, True):
        options = {"critic": {"backbone": backbone, **NO_WARMUP}, "gradient_checkpointing": checkpointing}
        trainer = trainer_for(folder, **options)
        torch.nn.init.ones_(trainer.training.critic.head.weight)
        update(trainer, PPO())
        found.append(bits(trainer) | trainer.training.critic.state_dict())
    assert same(*found)


def test_a_checkpoint_without_a_critic_is_refused(folder, tmp_path):
    trainer = trainer_for(folder)
    trainer.save(tmp_path)
    shutil.rmtree(tmp_path / "critic")
    with pytest.raises(UsageError, match=r"critic' lacks weights\.safetensors"):
        trainer.load(tmp_path)


def test_a_short_run_trains_its_actor_in_the_second_half(folder):
    trainer = trainer_for(folder, steps=4, critic={"warmup_updates": 20, "warmup_until": 1})
    assert [update(trainer, PPO())["critic/warm"] for _ in range(4)] == [0, 0, 1, 1]


def test_the_actors_learning_rate_rises_from_its_own_first_update_on(folder):
    critic = {"warmup_updates": 2, "warmup_until": 1, "learning_rate": 4e-3}
    trainer = trainer_for(folder, critic=critic, warmup_steps=4, learning_rate=4e-4)
    found = [update(trainer, PPO()) for _ in range(6)]
    assert [each["trainer/learning_rate"] for each in found[2:]] == pytest.approx([1e-4, 2e-4, 3e-4, 4e-4])
    assert [each["critic/learning_rate"] for each in found] == pytest.approx([1e-3, 2e-3, 3e-3] + [4e-3] * 3)


def test_the_warm_up_is_over_once_the_critic_explains_enough(folder):
    trainer = trainer_for(folder, critic={"warmup_updates": 1000, "warmup_until": 0.5, "learning_rate": 1e-2})
    explained = []
    for _ in range(200):
        explained.append(update(trainer, PPO()))
        if explained[-1]["critic/warm"]:
            break
    assert explained[-1]["critic/explained_variance"] >= 0.5
    assert all(each["critic/explained_variance"] < 0.5 for each in explained[:-1])


def test_extra_epochs_teach_the_critic_and_leave_the_actor_alone(folder):
    found = []
    for extra in (0, 3):
        trainer = trainer_for(folder, critic={**NO_WARMUP, "extra_epochs": extra})
        metrics = update(trainer, PPO())
        found.append(
            (bits(trainer), {k: v.clone() for k, v in trainer.training.critic.state_dict().items()}, metrics)
        )
    (actor, critic, few), (same_actor, taught, many) = found
    assert same(actor, same_actor)
    assert not same(critic, taught)
    assert few["trainer/loss"] == many["trainer/loss"]


def test_a_shared_backbone_is_moved_by_the_value_loss(folder):
    options = {"backbone": "shared", "warmup_updates": 0}
    moved = []
    for coefficient in (1e-9, 5.0):
        trainer = trainer_for(folder, critic=options)
        torch.nn.init.ones_(trainer.training.critic.head.weight)
        update(trainer, PPO(PPO.Config(value_coefficient=coefficient)))
        moved.append(bits(trainer))
    assert not same(*moved)
    assert [*trainer.training.critic.state_dict()] == ["head.weight", "head.bias"]


@pytest.mark.parametrize("backbone", ["separate", "shared"])
def test_training_with_a_critic_resumes_to_the_bit(folder, tmp_path, backbone):
    options = {
        "critic": {"backbone": backbone, "warmup_updates": 2, "warmup_until": 1},
        "epochs": 2,
        "minibatches": 2,
        "dtype": "float32",
    }
    whole = trainer_for(folder, **options)
    expected = [update(whole, PPO(), seed) for seed in range(5)]
    first = trainer_for(folder, **options)
    for seed in range(3):
        update(first, PPO(), seed)
    first.save(tmp_path)
    second = trainer_for(folder, **options)
    second.load(tmp_path)
    assert [update(second, PPO(), seed) for seed in (3, 4)] == expected[3:]
    assert same(bits(whole), bits(second))


def test_what_a_critic_explains_leaves_out_tokens_without_a_return():
    group = Group(Task("t"), [Trajectory(Task("t"))])
    batch = Batch([group], values=[[[0.0, 9.0, 2.0]]])
    credit = Credit([0.0] * 3, [0.0, math.nan, 4.0])
    assert explained_variance(batch, [[credit]]) == pytest.approx(1 - 1 / 4)
    assert math.isnan(explained_variance(batch, [[Credit([0.0] * 3, [1.0] * 3)]]))


def test_options_of_a_critic_that_nobody_needs_are_refused():
    trainer = TorchTrainer(TorchTrainer.Config(critic=CriticConfig()))
    with pytest.raises(UsageError, match=r"trainer\.critic is set, but the algorithm needs no critic"):
        trainer.check(frozenset({"groups"}))
    trainer.check(NEEDS)


@pytest.mark.parametrize(("actor", "critic"), [(1e-6, 1e-5), (3e-4, 1e-3), (5e-3, 5e-3)])
def test_the_critic_learns_ten_times_as_fast_within_reason(actor, critic):
    assert CriticConfig().rate(actor) == pytest.approx(critic)
    assert CriticConfig(learning_rate=2e-5).rate(actor) == 2e-5
