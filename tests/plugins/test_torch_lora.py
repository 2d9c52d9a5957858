"""Training an adapter: its step, what stays as it is, what engines and others get, and that it resumes."""

import asyncio
import math
import random
import subprocess
import sys
from itertools import chain

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    Qwen2Config,
)

from agentrl import Group, Sampling, Segment, Span, Task, Trajectory, UsageError
from agentrl.interfaces import Resources
from agentrl_grpo import GRPO
from agentrl_imitation import Imitation
from agentrl_ppo import PPO
from agentrl_torch import TorchEngine, TorchTrainer, adaptation
from agentrl_torch.lora import LoRAConfig
from small_training import SIZE, VOCABULARY, write_model

peft = pytest.importorskip("peft", reason="needs the extra peft")

torch.set_num_threads(1)

LORA = {"rank": 4, "alpha": 8}


def trainer_for(folder, needs=(), seed=0, **options):
    options = {"learning_rate": 1e-2, "audit_threshold": 1e9, "lora": LORA, **options}
    trainer = TorchTrainer(TorchTrainer.Config(**options))
    trainer.start(folder, frozenset(needs), 10, Resources(seed=seed))
    return trainer


def play(seed=0):
    """Return two groups of three trajectories with two turns each."""
    rng = random.Random(seed)
    groups = []
    for name in ("one", "two"):
        prompt = [rng.randrange(VOCABULARY) for _ in range(5)]
        members = []
        for _ in range(3):
            ids, spans = list(prompt), []
            for turn in range(2):
                length = rng.randrange(1, 5)
                spans.append(Span(len(ids), [-4.0] * length, turn))
                ids += [rng.randrange(VOCABULARY) for _ in range(length + 2)]
            members.append(Trajectory(Task(name), segments=[Segment(ids, spans)], reward=rng.random()))
        groups.append(Group(Task(name), members))
    return groups


def update(trainer, algorithm=None, seed=0):
    algorithm = algorithm or GRPO()
    batch = trainer.prepare(play(seed), algorithm.needs)
    return trainer.update(batch, algorithm.credit(batch), algorithm)


def bits(weights):
    return {name: tensor.detach().clone() for name, tensor in weights.items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def adapter_of(trainer):
    return {name: p for name, p in trainer.training.actor.named_parameters() if p.requires_grad}


def disturb(trainer):
    """Give the adapter a B that is not zero, so that all of it learns from the first step on."""
    torch.manual_seed(5)
    for name, parameter in adapter_of(trainer).items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)


def logprobs_of(model, trajectory):
    """Return the log-probabilities of the sampled tokens, of one sequence alone."""
    found = []
    for part in trajectory.segments:
        ids = torch.tensor(part.token_ids)
        logprobs = torch.log_softmax(model(ids[None]).logits[0].float(), -1)
        places = torch.tensor([at for span in part.spans for at in range(span.start, span.stop)])
        found.append(logprobs[places - 1, ids[places]])
    return torch.cat(found)


def step_by_hand(folder, adapter, groups):
    """Return the weights after a step of imitation on W + (alpha / rank) B A, made without peft and trie."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    own = {name: p.detach().clone().requires_grad_() for name, p in adapter.items()}
    frozen = {name: tensor.detach() for name, tensor in model.state_dict().items()}

    def merged():
        pairs = {name[: name.index(".lora_A")]: name for name in own if ".lora_A" in name}
        scale = LORA["alpha"] / LORA["rank"]
        return frozen | {
            f"{layer}.weight": frozen[f"{layer}.weight"] + scale * own[a.replace("lora_A", "lora_B")] @ own[a]
            for layer, a in pairs.items()
        }

    trajectories = [t for group in groups for t in group.trajectories]
    weights = merged()

    def run(ids):
        return torch.func.functional_call(model, weights, (ids,))

    losses = torch.cat([-logprobs_of(run, trajectory) for trajectory in trajectories])
    losses.mean().backward()
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in own.values()))
    with torch.no_grad():
        for parameter in own.values():
            gradient = parameter.grad * min(1.0, 1.0 / (norm + 1e-6))
            # The first step of Adam: both averages, corrected for their start, are those of one gradient.
            parameter -= 1e-2 * gradient / (gradient.abs() + 1e-8)
        return float(losses.mean()), norm, merged()


def test_a_step_is_that_of_the_sum_written_out_by_hand(folder):
    trainer = trainer_for(folder)
    disturb(trainer)
    loss, norm, expected = step_by_hand(folder, adapter_of(trainer), play())
    before = bits(trainer.weights())
    metrics = update(trainer, Imitation())
    assert metrics["trainer/loss"] == pytest.approx(loss, rel=1e-5)
    assert metrics["trainer/grad_norm"] == pytest.approx(norm, rel=1e-5)
    found = trainer.weights()
    assert found.keys() == expected.keys()
    moved = [name for name in expected if not torch.equal(before[name], found[name])]
    assert len(moved) == 14  # seven linear layers in each of the two, and nothing else
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-5)


def test_the_frozen_weights_never_change(folder):
    trainer = trainer_for(folder, {"reference"}, epochs=2)
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    for seed in range(3):
        update(trainer, GRPO(GRPO.Config(kl="k3", kl_coefficient=0.1)), seed)
        bits(trainer.weights())
    frozen = {
        n.replace(".base_layer.", "."): p
        for n, p in trainer.training.actor.named_parameters()
        if "lora" not in n
    }
    assert same(frozen, loaded)
    assert not same(bits(trainer.weights()), loaded)
    assert all(not p.requires_grad for p in frozen.values())


def test_the_reference_is_exactly_the_model_that_was_loaded(folder):
    needs = frozenset({"reference"})
    whole, trainer = trainer_for(folder, needs, lora={}), trainer_for(folder, needs)
    expected = whole.prepare(play(), needs).reference_logprobs
    assert trainer.prepare(play(), needs).reference_logprobs == expected
    algorithm = GRPO(GRPO.Config(kl="k3", kl_coefficient=0.1))
    first, second = update(trainer, algorithm), update(trainer, algorithm)
    assert first["policy/kl"] == pytest.approx(0, abs=1e-6)
    assert second["policy/kl"] > 1e-3
    assert trainer.prepare(play(), needs).reference_logprobs == expected
    with pytest.raises(UsageError, match="started without a reference"):
        trainer_for(folder).prepare(play(), needs)


def test_the_reference_is_no_second_copy(folder):
    with_reference, without = trainer_for(folder, {"reference"}), trainer_for(folder)
    assert len(storages(with_reference.training.actor)) == len(storages(without.training.actor))
    with with_reference.training._open_reference() as reference:
        assert reference.model is with_reference.training.actor


def storages(module):
    return {parameter.data_ptr() for parameter in module.parameters()}


async def ask_twice(engine, seed):
    """Play two turns with the engine and return the trajectory."""
    trajectory = Trajectory(Task("round trip"), segments=[Segment([3, 4, 5])], reward=float(seed))
    part = trajectory.segments[0]
    for turn in range(2):
        completion = await engine.generate(
            part.token_ids, Sampling(max_tokens=5, seed=10 * seed + turn), f"session {seed}"
        )
        part.spans.append(Span(len(part.token_ids), completion.logprobs, turn))
        part.token_ids += [*completion.token_ids, 7, 8]
    return trajectory


@pytest.mark.parametrize(("dtype", "threshold"), [("float32", 1e-4), ("bfloat16", 0.5)])
def test_what_the_engine_samples_is_what_the_trainer_trains(folder, dtype, threshold):
    trainer, engine = trainer_for(folder, dtype=dtype), TorchEngine(TorchEngine.Config(dtype=dtype))

    async def play_and_train():
        await engine.start(folder, Resources())
        found = []
        for version in range(3):
            await engine.load_weights(trainer.weights(), version)
            played = await asyncio.gather(*(ask_twice(engine, seed) for seed in range(4)))
            batch = trainer.prepare([Group(played[0].task, played)], frozenset())
            found.append(trainer.update(batch, GRPO().credit(batch), GRPO()))
        await engine.close()
        return found

    for metrics in asyncio.run(play_and_train()):
        assert metrics["audit/max_logprob_difference"] < threshold
        assert metrics["trainer/grad_norm"] > 0


def test_in_bfloat16_only_the_adapter_is_wide(folder):
    trainer = trainer_for(folder, {"values"}, dtype="bfloat16", critic={"warmup_updates": 0})
    update(trainer, PPO())
    assert {p.dtype for p in adapter_of(trainer).values()} == {torch.float32}
    assert {p.dtype for p in trainer.training.actor.parameters() if not p.requires_grad} == {torch.bfloat16}
    assert {tensor.dtype for tensor in trainer.weights().values()} == {torch.bfloat16}
    assert trainer.training.critic.head.weight.dtype == torch.float32


@pytest.mark.parametrize("algorithm", [GRPO, PPO])
def test_training_resumes_to_the_bit(folder, tmp_path, algorithm):
    options = {"needs": algorithm().needs, "epochs": 2, "minibatches": 2, "weight_decay": 0.1}
    options |= {"schedule": "cosine", "warmup_steps": 1}
    if algorithm is PPO:
        options["critic"] = {"warmup_updates": 1, "warmup_until": 1}
    whole, first = trainer_for(folder, **options), trainer_for(folder, **options)
    expected = [update(whole, algorithm(), seed) for seed in range(4)]
    for seed in range(2):
        update(first, algorithm(), seed)
    first.save(tmp_path)
    second = trainer_for(folder, **options, seed=1)  # its adapter begins elsewhere
    second.load(tmp_path)
    assert [update(second, algorithm(), seed) for seed in (2, 3)] == expected[2:]
    assert same(bits(whole.weights()), bits(second.weights()))


def test_a_checkpoint_holds_the_adapter_only_and_fits_no_other(folder, tmp_path):
    trainer = trainer_for(folder)
    trainer.save(tmp_path)
    from safetensors.torch import load_file

    assert load_file(tmp_path / "actor" / "weights.safetensors").keys() == adapter_of(trainer).keys()
    with pytest.raises(UsageError, match=r"is of another model.*trainer\.lora"):
        trainer_for(folder, lora={"rank": 2}).load(tmp_path)
    with pytest.raises(UsageError, match=r"is of another model.*trainer\.lora"):
        trainer_for(folder, lora={}).load(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        Qwen2Config(**SIZE),
        Qwen2Config(**SIZE, tie_word_embeddings=True),
        GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=VOCABULARY, n_positions=128),
    ],
    ids=["qwen2", "tied", "gpt2"],
)
def test_the_model_that_is_written_is_the_one_that_was_trained(tmp_path, config):
    folder = write_model(tmp_path / "base", config)
    trainer = trainer_for(folder)
    update(trainer)
    trainer.save_model(tmp_path / "model")
    batch = trainer.prepare(play(), frozenset({"logprobs"}))
    trained = list(chain(*chain(*batch.logprobs)))
    again = trainer_for(tmp_path / "model", {"logprobs"}, lora={})
    assert same(bits(trainer.weights()), bits(again.weights()))
    loaded = again.prepare(play(), frozenset({"logprobs"})).logprobs
    assert list(chain(*chain(*loaded))) == pytest.approx(trained, abs=1e-5)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    by_peft = peft.PeftModel.from_pretrained(base, tmp_path / "model" / "adapter")
    with torch.no_grad():
        found = [logprobs_of(by_peft, t).tolist() for group in batch.groups for t in group.trajectories]
    assert list(chain(*found)) == pytest.approx(trained, abs=1e-4)


def test_an_engine_could_have_the_adapter_alone(folder, tmp_path):
    from safetensors.torch import load_file

    trainer = trainer_for(folder)
    update(trainer)
    trainer.save_model(tmp_path)
    config, tensors = trainer.weights().adapter()
    assert same(bits(tensors), load_file(tmp_path / "adapter" / "adapter_model.safetensors"))
    assert (config["r"], config["lora_alpha"]) == (4, 8)


def test_imitation_with_an_adapter_learns(folder):
    trainer = trainer_for(folder, lora={"rank": 4})
    losses = [update(trainer, Imitation())["trainer/loss"] for _ in range(30)]
    assert losses[-1] < losses[0] / 2


def test_with_an_adapter_too_the_last_layer_is_computed_only_where_it_is_read(folder):
    assert adaptation.last_mlp(trainer_for(folder).training.actor) is not None


@pytest.mark.parametrize("options", [{"kernels": "plain"}, {"gradient_checkpointing": True}])
def test_other_ways_of_computing_train_alike(folder, options):
    one, other = trainer_for(folder, {"reference"}), trainer_for(folder, {"reference"}, **options)
    algorithm = GRPO(GRPO.Config(kl="k3", kl_coefficient=0.1))
    for seed in range(2):
        expected, found = update(one, algorithm, seed), update(other, algorithm, seed)
        assert found["trainer/loss"] == pytest.approx(expected["trainer/loss"], rel=1e-4, abs=1e-6)
        assert found["trainer/grad_norm"] == pytest.approx(expected["trainer/grad_norm"], rel=1e-4)


def test_a_critic_has_an_adapter_of_its_own_on_the_same_frozen_weights(folder):
    trainer = trainer_for(folder, {"values"}, critic={"warmup_updates": 0, "learning_rate": 1e-2})
    frozen = {p.data_ptr() for p in trainer.training.actor.parameters() if not p.requires_grad}
    critic, actor = trainer.training.critic, trainer.training.actor
    assert {p.data_ptr() for p in critic.parameters() if not p.requires_grad} <= frozen
    assert not {p.data_ptr() for p in critic.parameters() if p.requires_grad} & storages(actor)
    before = [
        bits(adapter_of(trainer)),
        {n: p.clone() for n, p in critic.named_parameters() if p.requires_grad},
    ]
    for seed in range(3):  # head, B and A begin to learn one after another: what is behind is 0 before
        update(trainer, PPO(), seed)
    after = [bits(adapter_of(trainer)), {n: p for n, p in critic.named_parameters() if p.requires_grad}]
    for old, new in zip(before, after, strict=True):
        moved = {name for name in old if not torch.equal(old[name], new[name])}
        assert any("lora_A" in name for name in moved)
        assert any("lora_B" in name for name in moved)


def test_a_critic_on_a_shared_backbone_moves_the_adapter(folder):
    moved = []
    for coefficient in (1e-9, 5.0):
        trainer = trainer_for(folder, {"values"}, critic={"backbone": "shared", "warmup_updates": 0})
        torch.nn.init.ones_(trainer.training.critic.head.weight)
        update(trainer, PPO(PPO.Config(value_coefficient=coefficient)))
        moved.append(bits(trainer.weights()))
    assert not same(*moved)


def test_an_adapter_begins_at_the_model_and_at_the_runs_seed(folder):
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    one, again, other = trainer_for(folder), trainer_for(folder), trainer_for(folder, seed=1)
    assert torch.equal(torch.rand(3), expected)
    assert same(adapter_of(one), adapter_of(again))
    assert not same(adapter_of(one), adapter_of(other))
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    assert same(bits(other.weights()), loaded)


def test_only_the_named_layers_get_an_adapter(folder):
    trainer = trainer_for(folder, lora={"rank": 2, "targets": ["q_proj", "lm_head"]})
    assert len(adapter_of(trainer)) == 2 * 3
    update(trainer)
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    moved = {name for name, tensor in trainer.weights().items() if not torch.equal(tensor, loaded[name])}
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in moved} == {"q_proj", "lm_head"}


def test_layers_that_cannot_have_an_adapter_are_refused(folder, tmp_path):
    with pytest.raises(UsageError, match="names no layer"):
        trainer_for(folder, lora={"rank": 2, "targets": []})
    with pytest.raises(UsageError, match=r"no linear layer 'q_prj'; did you mean 'q_proj'\?"):
        trainer_for(folder, lora={"rank": 2, "targets": ["q_prj"]})
    tied = write_model(tmp_path, Qwen2Config(**SIZE, tie_word_embeddings=True))
    with pytest.raises(UsageError, match="weights of 'lm_head' are also those of the embeddings"):
        trainer_for(tied, lora={"rank": 2, "targets": ["q_proj", "lm_head"]})


def test_options_of_an_adapter_without_a_rank_are_refused():
    with pytest.raises(UsageError, match=r"without trainer\.lora\.rank all weights are trained"):
        TorchTrainer(TorchTrainer.Config(lora={"alpha": 16})).check(frozenset())
    as_in_a_run_file = TorchTrainer.Config().model_dump()
    TorchTrainer(TorchTrainer.Config(**as_in_a_run_file)).check(frozenset())


def test_a_missing_peft_is_one_sentence_with_the_remedy(monkeypatch):
    monkeypatch.setattr("agentrl.extras.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'agentrl-platform\[peft\]'"):
        LoRAConfig(rank=8).check()
    LoRAConfig().check()


def test_a_peft_that_does_not_work_is_named_with_the_cause(folder, tmp_path, monkeypatch):
    (tmp_path / "peft.py").write_text("raise ImportError('made for another torch')")
    monkeypatch.delitem(sys.modules, "peft")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=r"peft, which cannot be imported \(made for another torch\)"):
        trainer_for(folder)


def test_an_adapter_learns_ten_times_as_fast_by_default():
    assert TorchTrainer.Config().rate == 1e-6
    assert TorchTrainer.Config(lora=LORA).rate == 1e-5
    assert TorchTrainer.Config(lora=LORA, learning_rate=3e-4).rate == 3e-4


def test_peft_is_imported_only_where_an_adapter_is_asked_for(folder):
    program = (
        "import sys\n"
        "from agentrl.interfaces import Resources\n"
        "from agentrl_torch import TorchTrainer\n"
        "trainer = TorchTrainer()\n"
        "trainer.check(frozenset())\n"
        f"trainer.start({str(folder)!r}, frozenset(), 1, Resources())\n"
        "sys.exit('peft' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
