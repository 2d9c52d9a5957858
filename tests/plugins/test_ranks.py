"""Whoever trains, in one process or in several, computes the same; and no rank is left behind."""

import errno
import json
import math
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import closing
from dataclasses import replace
from itertools import chain, groupby
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from agentrl import AgentRLError, Credit, Group, Segment, Span, Task, Trajectory, UsageError
from agentrl.interfaces import Resources
from agentrl.plugins import make
from agentrl.runtime import Peer, Program
from agentrl_grpo import GRPO
from agentrl_imitation import Imitation
from agentrl_ppo import PPO
from agentrl_tiny.tokenizer import build_tokenizer
from agentrl_torch import TorchTrainer, loading, micro_batch
from agentrl_torch.config import TorchConfig
from agentrl_torch.fsdp import FSDP
from agentrl_torch.rank import _attempt
from agentrl_torch.ranks import _share
from agentrl_torch.sharing import share

torch.set_num_threads(1)

NEEDS = frozenset({"values", "reference"})
OTHERS = [
    ("torch", {"ranks": 2}),
    *[("deepspeed", {"stage": stage, "ranks": ranks}) for stage in (1, 2, 3) for ranks in (1, 2)],
]


def name_of(value):
    return "-".join(f"{key}={one}" for key, one in value.items()) if isinstance(value, dict) else str(value)


every_other = pytest.mark.parametrize(("kind", "options"), OTHERS, ids=name_of)
# FSDP2, ZeRO-1 and ZeRO-3 on two ranks.
some_others = pytest.mark.parametrize(("kind", "options"), [OTHERS[0], OTHERS[2], OTHERS[-1]], ids=name_of)


def make_model(path, **more):
    tokenizer = build_tokenizer()
    torch.manual_seed(3)
    config = LlamaConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=24,
        **{"vocab_size": len(tokenizer), "max_position_embeddings": 128, **more},
    )
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"))


def trainer_for(folder, kind="torch", needs=NEEDS, **options):
    """Start a trainer; whoever calls closes it."""
    kind_of = TorchTrainer if kind == "torch" else deepspeed_trainer()
    critic = {"critic": {"warmup_updates": 0}} if "values" in needs else {}
    usual = {"learning_rate": 1e-3, "audit_threshold": 1e9}
    trainer = kind_of(kind_of.Config(**{**usual, **critic, **options}))
    trainer.check(needs)
    trainer.start(folder, needs, 10, Resources())
    return trainer


def deepspeed_trainer():
    pytest.importorskip("deepspeed", reason="install agentrl's extra 'deepspeed'")
    from agentrl_deepspeed import DeepSpeedTrainer

    return DeepSpeedTrainer


def play(seed=0, tasks=3):
    """Return groups of three trajectories with two turns each; only some earn something."""
    rng = random.Random(seed)
    groups = []
    for name in range(tasks):
        prompt = [rng.randrange(10, 60) for _ in range(5)]
        members = []
        for _ in range(3):
            ids, spans = list(prompt), []
            for turn in range(2):
                length = rng.randrange(1, 6)
                spans.append(Span(len(ids), [-4.0] * length, turn))
                ids += [rng.randrange(10, 60) for _ in range(length + 2)]
            members.append(Trajectory(Task(f"{name}"), segments=[Segment(ids, spans)], reward=rng.random()))
        groups.append(Group(Task(f"{name}"), members))
    return groups


def update(trainer, seed=0, algorithm=None, tasks=3):
    algorithm = algorithm or PPO(PPO.Config(kl="k3", kl_coefficient=0.1))
    batch = trainer.prepare(play(seed, tasks), algorithm.needs)
    return trainer.update(batch, algorithm.credit(batch), algorithm)


def flat(facts):
    return [number for members in facts for row in members for number in row]


def what_it_learns(folder, kind="torch", updates=2, algorithm=None, tasks=3, **options):
    """Return weights, facts about a batch, and metrics after some updates."""
    with closing(trainer_for(folder, kind, **options)) as trainer:
        metrics = [update(trainer, seed, algorithm, tasks) for seed in range(updates)]
        batch = trainer.prepare(play(9), NEEDS)
        weights = {name: tensor.clone() for name, tensor in trainer.weights().items()}
        return weights, flat(batch.values), flat(batch.reference_logprobs), metrics


def assert_alike(one, other, tolerance=1e-5):
    assert one[0].keys() == other[0].keys()
    assert max(float((one[0][name] - other[0][name]).abs().max()) for name in one[0]) < tolerance
    for left, right in ((one[1], other[1]), (one[2], other[2])):
        assert left == pytest.approx(right, abs=tolerance)
    for left, right in zip(one[3], other[3], strict=True):
        same = [name for name in left if not name.endswith(("_tokens", "sharing"))]
        assert [left[n] for n in same] == pytest.approx([right[n] for n in same], abs=1e-4, nan_ok=True)


@pytest.mark.slow
@every_other
def test_updates_give_the_same_actor_and_critic_whoever_makes_them(folder, kind, options):
    expected = what_it_learns(folder)
    before = LlamaForCausalLM.from_pretrained(folder).state_dict()
    assert min(float((expected[0][name] - before[name]).abs().max()) for name in expected[0]) > 1e-4
    assert_alike(what_it_learns(folder, kind, **options), expected)


@pytest.mark.slow
@some_others
@pytest.mark.parametrize(
    "more",
    [
        {"critic": {"backbone": "shared", "warmup_updates": 0}},
        {"critic": {"warmup_updates": 1, "warmup_until": 1, "extra_epochs": 1}},
        {"micro_batch_tokens": 12},
        {"minibatches": 2, "epochs": 2, "old_logprobs": "recompute", "weight_decay": 0.1},
        {"gradient_checkpointing": True},
    ],
    ids=name_of,
)
def test_updates_are_the_same_with_other_options_too(folder, kind, options, more):
    assert_alike(what_it_learns(folder, kind, **options, **more), what_it_learns(folder, **more))


@pytest.mark.slow
@some_others
def test_models_with_tied_weights_are_trained_alike(tmp_path, kind, options):
    tied = make_model(tmp_path, tie_word_embeddings=True)
    found = what_it_learns(tied, kind, **options)
    assert "lm_head.weight" not in found[0]
    assert_alike(found, what_it_learns(tied))


@pytest.mark.slow
@some_others
def test_three_ranks_may_have_less_to_do_than_there_are_of_them(folder, kind, options):
    more = {"ranks": 3}
    found = what_it_learns(folder, kind, tasks=1, **{**options, **more})
    assert_alike(found, what_it_learns(folder, tasks=1))


@pytest.mark.slow
@every_other
def test_where_nothing_is_taught_all_ranks_make_a_step_of_zero(folder, kind, options):
    with closing(trainer_for(folder, kind, needs=frozenset({"groups"}), **options)) as trainer:
        algorithm, groups = GRPO(), play()
        for trajectory in chain.from_iterable(group.trajectories for group in groups):
            trajectory.reward = 1.0
        batch = trainer.prepare(groups, algorithm.needs)
        metrics = trainer.update(batch, algorithm.credit(batch), algorithm)
    assert metrics["trainer/skipped"] == 1
    assert metrics["trainer/grad_norm"] == metrics["trainer/loss"] == 0


# Adapters


LORA = {"rank": 4, "alpha": 8}
FEW = {**LORA, "targets": ["q_proj", "lm_head"]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "more"),
    [
        (2, {"lora": LORA}),
        (2, {"lora": FEW, "gradient_checkpointing": True, "kernels": "plain"}),
        (3, {"lora": LORA, "critic": {"backbone": "shared", "warmup_updates": 0}, "epochs": 2}),
    ],
    ids=["all layers", "few layers", "shared critic"],
)
def test_ranks_train_an_adapter_as_one_process_does(folder, ranks, more):
    needs_peft()
    expected = what_it_learns(folder, **more)
    before = LlamaForCausalLM.from_pretrained(folder).state_dict()
    assert expected[0].keys() == before.keys()
    moved = [name for name in before if not torch.equal(expected[0][name], before[name])]
    assert len(moved) == (3 if more["lora"] is FEW else 14)
    assert_alike(what_it_learns(folder, ranks=ranks, **more), expected)


def needs_peft():
    pytest.importorskip("peft", reason="install agentrl's extra 'peft'")


@pytest.mark.slow
def test_ranks_train_an_adapter_in_bfloat16_on_frozen_weights_in_bfloat16(folder):
    needs_peft()
    exact, rough = (
        what_it_learns(folder, lora=LORA, **more) for more in ({}, {"ranks": 2, "dtype": "bfloat16"})
    )
    assert {tensor.dtype for tensor in rough[0].values()} == {torch.bfloat16}
    assert_alike((*rough[:3], []), (*exact[:3], []), tolerance=0.02)
    for left, right in zip(rough[3], exact[3], strict=True):
        assert left["trainer/grad_norm"] == pytest.approx(right["trainer/grad_norm"], rel=0.05)


@pytest.mark.slow
def test_ranks_resume_an_adapter_to_the_bit_and_another_number_of_them_can(folder, tmp_path):
    needs_peft()
    with closing(trainer_for(folder, ranks=2, lora=LORA)) as through:
        update(through)
        through.save(tmp_path / "checkpoint")
        through.save_model(tmp_path / "model")
        saved = {name: tensor.clone() for name, tensor in through.weights().items()}
        expected = update(through, 1)
        weights = {name: tensor.clone() for name, tensor in through.weights().items()}
    assert all(
        ".lora_" in name for name in load_file(tmp_path / "checkpoint" / "actor" / "weights.safetensors")
    )
    with closing(trainer_for(folder, ranks=2, lora=LORA)) as resumed:
        resumed.load(tmp_path / "checkpoint")
        assert update(resumed, 1) == expected
        found = resumed.weights()
        assert all(torch.equal(weights[name], found[name]) for name in weights)
    with closing(trainer_for(folder, lora=LORA)) as alone:
        alone.load(tmp_path / "checkpoint")
        assert alike(bits(alone.weights()), saved)
        assert alike(bits(alone.weights()), load_file(tmp_path / "model" / "model.safetensors"))
        _, adapter = alone.weights().adapter()
        assert alike(bits(adapter), load_file(tmp_path / "model" / "adapter" / "adapter_model.safetensors"))


def bits(weights):
    return {name: tensor.clone() for name, tensor in weights.items()}


def alike(one, other):
    same = one.keys() == other.keys()
    return same and all(torch.allclose(one[name], other[name], rtol=0, atol=1e-6) for name in one)


# Loading


@pytest.fixture
def narrow(folder, tmp_path):
    """Return the model in bfloat16."""
    return stored_in(torch.bfloat16, folder, tmp_path / "narrow")


def stored_in(dtype, folder, path):
    shutil.copytree(folder, path)
    LlamaForCausalLM.from_pretrained(folder, dtype=dtype).save_pretrained(path)
    return path


@pytest.mark.slow
def test_ranks_widen_what_is_stored_in_bfloat16_without_loss(narrow):
    assert_alike(what_it_learns(narrow, ranks=2), what_it_learns(narrow))


def test_a_model_is_mapped_as_it_is_stored_where_nothing_gets_lost(folder, narrow, tmp_path, monkeypatch):
    loads, load = [], loading.load_model
    monkeypatch.setattr(loading, "load_model", lambda *args: loads.append(args) or load(*args))

    def dtype_of(path, wanted):
        loads.clear()
        found = loading.map_model(path, wanted, "cpu").dtype
        assert len(loads) == 1
        return found

    assert dtype_of(narrow, torch.float32) == torch.bfloat16
    assert dtype_of(folder, torch.float64) == torch.float32
    assert dtype_of(folder, torch.bfloat16) == torch.bfloat16
    tensors = load_file(narrow / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].float() + 1e-6
    save_file(tensors, narrow / "model.safetensors", {"format": "pt"})
    assert dtype_of(narrow, torch.float32) == torch.float32
    wrong = named(torch.bfloat16, stored_in(torch.float32, folder, tmp_path / "wrong"))
    assert dtype_of(wrong, torch.float32) == torch.float32
    monkeypatch.setattr(loading, "snapshot_download", lambda name, **_: narrow)
    assert loading._stored("somebody/narrow") == {torch.bfloat16, torch.float32}


def named(dtype, path):
    """Let the config of the model say that it is stored in another type."""
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"dtype": str(dtype).removeprefix("torch.")}))
    return path


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="asks Linux how much memory there is")
def test_what_is_mapped_takes_no_memory_and_copies_take_none_either(tmp_path):
    model = make_model(tmp_path, vocab_size=1_000_000)  # 64 MB each for the first matrix and the last
    named(torch.bfloat16, model)  # which does not matter
    sharding = sharding_on_the_cpu()

    def private():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024

    before = private()
    loaded = sharding.load(model, widened=True)
    copies = [sharding.copied(loaded) for _ in range(2)]
    assert private() - before < 2**24
    pointers = [[weight.data_ptr() for weight in each.parameters()] for each in (loaded, *copies)]
    assert pointers[0] == pointers[1] == pointers[2]
    assert not {id(weight) for weight in loaded.parameters()} & {
        id(weight) for weight in copies[0].parameters()
    }


def sharding_on_the_cpu():
    """Return what keeps weights in float32, without a process group."""
    sharding = FSDP()
    sharding.device, sharding.kept = "cpu", torch.float32
    return sharding


@torch.no_grad()
def test_a_model_in_the_main_memory_computes_with_a_layer_at_a_time_as_it_will(narrow):
    ids = torch.arange(10, 20)[None]
    expected = LlamaForCausalLM.from_pretrained(narrow, dtype=torch.float32)(ids).logits
    sharding = sharding_on_the_cpu()
    model = sharding.load(narrow, widened=True)
    layers, seen = model.model.layers, []
    hook = layers[1].register_forward_hook(
        lambda *_: seen.append([next(each.parameters()).dtype for each in layers])
    )
    with sharding.computing(model):
        assert torch.equal(model(ids).logits, expected)
    hook.remove()
    assert seen == [[torch.bfloat16, torch.float32]]
    assert_as_it_was(model)


def assert_as_it_was(model):
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in model.model.layers)


@torch.no_grad()
def test_a_model_in_the_main_memory_is_as_it_was_after_an_error(narrow, monkeypatch):
    sharding = sharding_on_the_cpu()
    model = sharding.load(narrow, widened=True)

    def refuse(*_, **__):
        raise UsageError("not this model")

    with monkeypatch.context() as patch, sharding.computing(model):
        patch.setattr(model.model.layers[1].mlp, "forward", refuse)
        with pytest.raises(UsageError):
            model(torch.arange(10, 20)[None])
        assert model.model.layers[1].mlp.up_proj.weight.dtype == torch.float32
    assert_as_it_was(model)


# Checkpoints


@pytest.mark.slow
@some_others
def test_ranks_resume_to_the_bit(folder, tmp_path, kind, options):
    with closing(trainer_for(folder, kind, schedule="cosine", **options)) as through:
        update(through)
        through.save(tmp_path / "checkpoint")
        expected = [update(through, seed) for seed in (1, 2)]
        weights = {name: tensor.clone() for name, tensor in through.weights().items()}
    with closing(trainer_for(folder, kind, schedule="cosine", **options)) as resumed:
        resumed.load(tmp_path / "checkpoint")
        assert [update(resumed, seed) for seed in (1, 2)] == expected
        found = resumed.weights()
        assert all(torch.equal(weights[name], found[name]) for name in weights)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_checkpoint_of_the_torch_trainer_is_for_any_number_of_ranks(folder, tmp_path, before, after):
    with closing(trainer_for(folder, ranks=before)) as first:
        update(first)
        first.save(tmp_path / "checkpoint")
        expected = update(first, 1)
    with closing(trainer_for(folder, ranks=after)) as second:
        second.load(tmp_path / "checkpoint")
        found = update(second, 1)
    same = [name for name in expected if not name.endswith(("_tokens", "sharing"))]
    assert [found[n] for n in same] == pytest.approx([expected[n] for n in same], abs=1e-5)


@pytest.mark.slow
def test_a_checkpoint_of_deepspeed_is_for_as_many_ranks(folder, tmp_path):
    with closing(trainer_for(folder, "deepspeed", stage=1, ranks=1)) as first:
        first.save(tmp_path / "checkpoint")
    with (
        closing(trainer_for(folder, "deepspeed", stage=2, ranks=1)) as second,
        pytest.raises(UsageError, match="ZeRO stage 1 does it over 1 ranks"),
    ):
        second.load(tmp_path / "checkpoint")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "options"), [OTHERS[0], OTHERS[-1]], ids=name_of)
def test_the_model_that_ranks_write_is_the_one_they_have_trained(folder, tmp_path, kind, options):
    with closing(trainer_for(folder, kind, **options)) as trainer:
        update(trainer)
        trainer.save_model(tmp_path / "model")
        weights = trainer.weights()
    written = load_file(tmp_path / "model" / "model.safetensors")
    assert all(torch.equal(weights[name], written[name]) for name in weights)
    assert (tmp_path / "model" / "tokenizer.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("torch", {"ranks": 2}),
        ("deepspeed", {"stage": 2, "ranks": 2}),
        ("deepspeed", {"stage": 3, "ranks": 2}),
    ],
    ids=name_of,
)
def test_ranks_train_in_bfloat16_what_one_process_does_in_float32(folder, kind, options):
    exact, rough = what_it_learns(folder), what_it_learns(folder, kind, dtype="bfloat16", **options)
    assert_alike((*rough[:3], []), (*exact[:3], []), tolerance=0.02)
    for left, right in zip(rough[3], exact[3], strict=True):
        assert left["trainer/grad_norm"] == pytest.approx(right["trainer/grad_norm"], rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"stage": 1, "offload_optimizer": "cpu"}, {"stage": 3, "offload_weights": "cpu"}], ids=name_of
)
def test_offloading_changes_nothing(folder, options):
    assert_alike(what_it_learns(folder, "deepspeed", **options), what_it_learns(folder))


# What goes wrong


@pytest.mark.slow
@some_others
def test_a_loss_that_is_not_finite_stops_all_ranks(folder, kind, options):
    with closing(trainer_for(folder, kind, needs=frozenset(), **options)) as trainer:
        batch = trainer.prepare(play(), frozenset())
        credits = Imitation().credit(batch)
        credits[2][1] = Credit([math.inf] * len(credits[2][1].advantages))
        with pytest.raises(AgentRLError, match="update 1: the loss is not finite"):
            trainer.update(batch, credits, GRPO())
        assert_all_gone(trainer)


STEEP = """
from agentrl_grpo import GRPO

class Steep(GRPO):
    def loss(self, tokens):
        return (tokens.logprobs - tokens.logprobs.detach()).abs().sqrt()  # its slope at 0 is infinite
"""


@pytest.mark.slow
@some_others
def test_a_gradient_that_is_not_finite_stops_all_ranks(folder, tmp_path, monkeypatch, kind, options):
    (tmp_path / "steep.py").write_text(STEEP)
    monkeypatch.syspath_prepend(tmp_path)
    from steep import Steep

    with (
        closing(trainer_for(folder, kind, needs=frozenset({"groups"}), **options)) as trainer,
        pytest.raises(AgentRLError, match="update 1: the actor's gradient is nan"),
    ):
        update(trainer, algorithm=Steep())


@pytest.mark.slow
def test_the_audit_stops_all_ranks(folder):
    with closing(trainer_for(folder, ranks=2, audit_threshold=1e-3)) as trainer:
        with pytest.raises(AgentRLError, match="engine and trainer disagree about a token"):
            update(trainer)
        with pytest.raises(AgentRLError, match=r"the trainer's rank \d has failed"):
            trainer.weights()


def pids(trainer):
    return [rank.peer.pid for rank in trainer.training._crew]


def is_there(pid):
    """Return whether a process is there and not a zombie."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def assert_all_gone(trainer, *numbers):
    deadline = time.monotonic() + 30
    while any(map(is_there, numbers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_there, numbers))
    assert trainer is None or trainer.training._crew == []


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "options"), [OTHERS[0], OTHERS[-1]], ids=name_of)
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_is_one_sentence_and_the_end_of_all(folder, kind, options, victim):
    with closing(trainer_for(folder, kind, **options)) as trainer:
        numbers = pids(trainer)
        os.kill(numbers[victim], signal.SIGKILL)
        sentence = (
            f"the trainer's rank {victim} was killed by signal 9; --resume goes on from the last checkpoint"
        )
        with pytest.raises(AgentRLError, match=sentence):
            update(trainer)
        assert_all_gone(trainer, *numbers)
        with pytest.raises(AgentRLError, match=f"the trainer's rank {victim} has failed"):
            trainer.weights()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "options"), [OTHERS[0], OTHERS[-1]], ids=name_of)
def test_a_rank_that_is_killed_in_the_midst_of_an_update_does_not_leave_the_others_waiting(
    folder, kind, options
):
    with closing(trainer_for(folder, kind, **options)) as trainer:
        numbers = pids(trainer)
        os.kill(numbers[1], signal.SIGSTOP)  # so that rank 0 waits for it in the midst of the update
        threading.Timer(2, os.kill, (numbers[1], signal.SIGKILL)).start()
        with pytest.raises(AgentRLError, match="rank 1 was killed by signal 9"):
            update(trainer)
        assert_all_gone(trainer, *numbers)


@pytest.fixture
def heeded_interrupts():
    """Have Ctrl-C do what it does; shells start background jobs with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("heeded_interrupts")
def test_an_interrupted_update_leaves_no_process(folder):
    with closing(trainer_for(folder, ranks=2)) as trainer:
        numbers = pids(trainer)
        os.kill(numbers[1], signal.SIGSTOP)
        threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            update(trainer)
        assert_all_gone(trainer, *numbers)


@pytest.mark.slow
def test_ranks_end_with_the_process_that_started_them(folder):
    code = f"""
        import os, signal
        from agentrl.interfaces import Resources
        from agentrl_torch import TorchTrainer
        trainer = TorchTrainer(TorchTrainer.Config(ranks=2))
        trainer.start({str(folder)!r}, frozenset(), 1, Resources())
        print(*[rank.peer.pid for rank in trainer.training._crew], flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    numbers = [int(word) for word in done.stdout.split()]
    assert len(numbers) == 2
    assert_all_gone(None, *numbers)


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_is_one_sentence_on_ranks_too(tmp_path):
    with pytest.raises(UsageError, match=r"has no config\.json, so it is no model"):
        trainer_for(tmp_path, ranks=2)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits the files of another process")
@pytest.mark.parametrize("limit", [10_000, 60_000], ids=["weights", "optimizer"])
def test_a_rank_that_cannot_write_says_so_as_the_operating_system_does(folder, tmp_path, limit):
    with closing(trainer_for(folder, needs=frozenset({"groups"}), ranks=2)) as trainer:
        update(trainer, algorithm=GRPO())
        resource.prlimit(pids(trainer)[0], resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        with pytest.raises(OSError, match="File too large") as failed:
            trainer.save(tmp_path / "checkpoint")
        assert failed.value.errno == errno.EFBIG
        assert "the trainer's rank 0 failed" in str(failed.value.__cause__)
        with pytest.raises(AgentRLError, match="the trainer's rank 0 has failed"):
            trainer.weights()


class LibrarysError(OSError):
    """An error that cannot be made from its arguments alone, as some libraries have them."""

    def __init__(self, *arguments, response):
        super().__init__(*arguments)
        self.response = response


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "model.safetensors"),
        LibrarysError(errno.ENOSPC, "No space left on device", response="507"),
        LibrarysError("no room", response="507"),
    ],
)
def test_an_error_of_the_operating_system_in_writing_reaches_the_run_as_such(error):
    failure = pickle.loads(pickle.dumps(failure_of("save", error)))
    assert type(failure.expected) is OSError
    assert (failure.expected.errno, str(failure.expected)) == (error.errno, str(error))
    assert "LibrarysError" in failure.text or type(error) is OSError


@pytest.mark.parametrize("name", ["update", "prepare", "load"])
def test_a_broken_pipe_of_a_rank_is_not_taken_for_that_of_the_run(name):
    failure = failure_of(name, BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert failure.expected is None
    assert "BrokenPipeError" in failure.text


def failure_of(name, error):
    """Return what a rank answers if what it was asked to do raises `error`."""

    def fail():
        raise error

    anything = SimpleNamespace(**{name: fail})
    anything.training = anything
    return _attempt(anything, name, ())


@pytest.mark.slow
def test_only_the_first_rank_says_what_there_is_to_know_about_a_batch(folder, monkeypatch):
    with closing(trainer_for(folder, ranks=2)) as trainer:
        answers = []
        collect = trainer.training._collect
        monkeypatch.setattr(trainer.training, "_collect", lambda: answers.append(collect()) or answers[-1])
        batch = trainer.prepare(play(), NEEDS)
    assert flat(batch.values)
    assert {rank.number for rank, answer in answers[0].items() if answer is not None} == {0}


@pytest.mark.slow
def test_an_algorithm_that_cannot_be_sent_to_ranks_is_refused(folder):
    class Local(GRPO):
        pass

    with (
        closing(trainer_for(folder, needs=frozenset({"groups"}), ranks=2)) as trainer,
        pytest.raises(UsageError, match="define its class in a module that can be imported"),
    ):
        update(trainer, algorithm=Local())


# Without any process


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"critic": {}}, "trainer.critic is set, but the algorithm needs no critic"),
    ],
)
def test_options_that_cannot_be_combined_are_refused(options, sentence):
    pytest.importorskip("peft", reason="install agentrl's extra 'peft'")
    with pytest.raises(UsageError, match=sentence):
        TorchConfig(**options).check(frozenset())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"stage": 2, "offload_weights": "cpu"}, "offload_weights needs trainer.stage=3"),
        ({"lora": {"rank": 4}}, "the trainer 'deepspeed' trains all weights"),
        ({"dtype": "float64"}, "does not compute in float64"),
        ({"deepspeed": {"optimizer": {}}}, "trainer.deepspeed.optimizer is decided by trainer.learning_rate"),
        ({"zero": {"stage": 3}}, "trainer.zero.stage is decided by trainer.stage"),
    ],
)
def test_options_that_deepspeed_cannot_have_are_refused(options, sentence):
    pytest.importorskip("peft", reason="install agentrl's extra 'peft'")
    trainer = deepspeed_trainer()
    with pytest.raises(UsageError, match=sentence):
        trainer(trainer.Config(**options)).check(frozenset())


def test_without_deepspeed_its_trainer_says_what_to_install(monkeypatch):
    from agentrl_deepspeed import DeepSpeedTrainer

    monkeypatch.setattr("agentrl.extras.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'agentrl-platform\[deepspeed\]'"):
        DeepSpeedTrainer().check(frozenset())


class Somewhere(Peer):
    """A process that says what it may use."""

    def __init__(self, threads=None):
        self.threads = threads

    epitaph = end = None


Somewhere.__abstractmethods__ = frozenset()


def test_ranks_get_a_part_of_the_threads_or_what_their_machine_has_and_a_gpu_each():
    program = Program("module", "trainer", 1)
    assert _share(Resources(threads=5), 2, program, Somewhere()).threads == 2
    assert _share(Resources(threads=1), 2, program, Somewhere()).threads == 1
    assert _share(Resources(threads=5), 2, program, Somewhere(threads=8)).threads == 8
    with_gpu = replace(program, device="cuda:4")
    assert _share(Resources(device="cuda:4"), 2, with_gpu, Somewhere()).device == "cuda:0"
    own = _share(Resources(runtime=make("runtime", "local")), 2, program, Somewhere())
    assert (own.device, own.runtime) == ("cpu", None)


def test_ranks_need_a_gpu_each():
    wanted = torch.cuda.device_count() + 1
    trainer = TorchTrainer(TorchTrainer.Config(ranks=wanted + 1))
    with pytest.raises(UsageError, match=f"GPUs from 'cuda' on, and this machine has {wanted - 1}"):
        trainer.start("model", frozenset(), 1, Resources(device="cuda"))


def test_trainers_say_how_many_processes_they_will_need():
    deepspeed = pytest.importorskip("agentrl_deepspeed.trainer").DeepSpeedTrainer
    assert TorchTrainer().crew.processes == 0
    assert TorchTrainer(TorchTrainer.Config(ranks=3)).crew.processes == 3
    assert deepspeed().crew.processes == 1


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
@pytest.mark.parametrize("tasks", [1, 2, 7])
def test_every_trajectory_is_computed_by_one_rank_and_none_has_much_more_to_do(ranks, tasks):
    rows = micro_batch.encode(play(tasks=tasks))
    shares = share(rows, ranks, budget=1000)
    assert sorted((r.group, r.member) for mine in shares for r in mine) == [(r.group, r.member) for r in rows]
    assert shares == share(rows, ranks, budget=1000)
    sizes = [micro_batch.unique_tokens(mine) for mine in shares]
    heaviest = groupby(shares[sizes.index(max(sizes))], key=lambda row: row.group)
    smallest_piece = min(micro_batch.unique_tokens(list(rows)) for _, rows in heaviest)
    assert max(sizes) - min(sizes) <= smallest_piece, "moving a piece to who has least would even it out"
    assert all(sizes) or max(map(len, shares)) == 1, "a rank is idle while another has several trajectories"


def test_groups_stay_together_where_there_are_enough_of_them():
    shares = share(micro_batch.encode(play(tasks=8)), 2, budget=1000)
    groups = [{row.group for row in mine} for mine in shares]
    assert not groups[0] & groups[1]
