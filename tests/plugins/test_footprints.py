"""What engines and trainers say that they take is what they take: exactly, or nearly, of activations."""

import json
import weakref
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from transformers import Qwen2Config, Qwen2ForCausalLM

from agentrl import UsageError
from agentrl.footprint import Holding, Workload, loads
from agentrl.interfaces import Resources
from agentrl_deepspeed import DeepSpeedTrainer
from agentrl_grpo import GRPO
from agentrl_ppo import PPO
from agentrl_tiny.tokenizer import build_tokenizer
from agentrl_torch import TorchEngine, TorchTrainer, rehearsal
from agentrl_torch.metrics import Tally
from agentrl_vllm import VLLMEngine
from two_ranks import in_two_ranks

torch.set_num_threads(1)

TOKENS = 512
WORK = Workload(episodes=4, group_size=1, tokens=TOKENS)


class Tracker(TorchDispatchMode):
    """Counts the bytes of tensors that were made in the block and are alive; `most` there were at once."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.now = self.most = 0
        self._seen = {each.untyped_storage()._cdata: 0 for each in model.parameters()}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        for each in tree_flatten(found)[0]:
            if type(each) is torch.Tensor:  # one that is split over ranks has none of its own
                self._add(each.untyped_storage())
        return found

    def _add(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if size and key not in self._seen:
            self._seen[key] = size
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self._seen.pop(key, 0)


def make_model(folder: Path, **more: Any) -> Path:
    tokenizer = build_tokenizer()
    shape = {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 6}
    config = Qwen2Config(
        **{**shape, **more},
        num_key_value_heads=2,
        vocab_size=len(tokenizer),
        max_position_embeddings=2 * TOKENS,
    )
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("tied"), tie_word_embeddings=True)


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("untied"), tie_word_embeddings=False)


def said(trainer: TorchTrainer, model: Path, needs: frozenset[Any]) -> dict[str, int]:
    """Return what the only occupant says that it holds, by the first word or two."""
    (occupant,) = trainer.footprint(model, needs, Resources(), WORK).occupants
    return {name_of(each): each.bytes for each in occupant.holdings}


def name_of(holding: Holding) -> str:
    return "activations" if holding.what.startswith("activations") else holding.what


def numbers(parameters: Any) -> int:
    return sum({id(each): each.nbytes for each in parameters}.values())


def learnt(trainer: TorchTrainer) -> Iterator[torch.nn.Parameter]:
    for learner in trainer.training._learners.all:
        for group in learner.optimizer.param_groups:
            yield from group["params"]


SOME_LAYERS = {"rank": 4, "targets": ["q_proj", "down_proj"]}
CASES: dict[str, tuple[dict[str, Any], Any]] = {
    "one process": ({}, GRPO()),
    "reference": ({}, GRPO(GRPO.Config(kl="k2", kl_coefficient=0.1))),
    "lora": ({"lora": {"rank": 8}}, GRPO()),
    "lora in bfloat16": ({"lora": SOME_LAYERS, "dtype": "bfloat16"}, GRPO()),
    "critic": ({"critic": {"warmup_updates": 0}}, PPO()),
    "shared critic": ({"critic": {"warmup_updates": 0, "backbone": "shared"}}, PPO()),
    "lora with critic": ({"lora": {"rank": 8}, "critic": {"warmup_updates": 0}}, PPO()),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("head", ["tied", "untied"])
def test_weights_gradients_and_adams_state_are_told_to_the_byte(
    case: str, head: str, request: pytest.FixtureRequest
) -> None:
    options, algorithm = CASES[case]
    if "lora" in options:
        pytest.importorskip("peft", reason="install agentrl's extra 'peft'")
    model = request.getfixturevalue(head)
    trainer = TorchTrainer(TorchTrainer.Config(audit_threshold=1e9, **options))
    told = said(trainer, model, algorithm.needs)
    trainer.start(model, algorithm.needs, 10, Resources())
    with closing(trainer):
        training = trainer.training
        batch, credits = rehearsal.batch_of(rehearsal.longest_groups(24, 1, 24, 1), values=True)
        training.prepare(batch, algorithm.needs)
        training.step(batch, credits, algorithm).accumulate(batch.minibatches[0], Tally(), None)
        moving = list(learnt(trainer))
        assert told["gradients"] == sum(each.grad.nbytes for each in moving)
        for learner in training._learners.all:
            learner.step(1)
        kept = [state for each in training._learners.all for state in each.optimizer.state.values()]
        assert told["optimizer state"] == sum(one.nbytes for state in kept for one in state.values())
        frozen = [each for name, each in training.actor.named_parameters() if ".lora_" not in name]
        assert told["weights"] == numbers(frozen)
        critic = [] if training.critic is None else training.critic.parameters()
        mine = {id(each) for each in training.actor.parameters()}
        assert told.get("critic", 0) == numbers(each for each in critic if id(each) not in mine)
        if "adapter" in told:
            adapter = [each for each in training.actor.parameters() if each.requires_grad]
            assert told["adapter"] == numbers(adapter)
        assert told.get("reference", 0) == (numbers(frozen) if case == "reference" else 0)


WAYS: dict[str, dict[str, Any]] = {
    "as usual": {},
    "recomputed": {"gradient_checkpointing": True},
    "plain": {"kernels": "plain"},
    "narrow": {"dtype": "bfloat16"},
    "plain and narrow": {"kernels": "plain", "dtype": "bfloat16"},
    "lora": {"lora": {"rank": 8}},
    "lora, narrow and recomputed": {
        "lora": {"rank": 8},
        "dtype": "bfloat16",
        "kernels": "plain",
        "gradient_checkpointing": True,
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_activations_are_told_within_a_quarter(way: str, tied: Path) -> None:
    options = WAYS[way]
    if "lora" in options:
        pytest.importorskip("peft", reason="install agentrl's extra 'peft'")
    config = TorchTrainer.Config(micro_batch_tokens=TOKENS, **options)
    trainer, algorithm = TorchTrainer(config), GRPO()
    told = said(trainer, tied, algorithm.needs)
    trainer.start(tied, algorithm.needs, 10, Resources())
    with closing(trainer):
        batch, credits = rehearsal.batch_of(rehearsal.longest_groups(TOKENS, 1, TOKENS, 1), values=False)
        step = trainer.training.step(batch, credits, algorithm)
        with Tracker(trainer.training.actor) as tracker:
            for rows in batch.minibatches * 2:
                step.accumulate(rows, Tally(), None)
    expected = sum(told.get(each, 0) for each in ("activations", "gradients", "weights in bfloat16"))
    assert 0.95 <= expected / tracker.most <= 1.25, (expected, tracker.most)


def test_the_engines_weights_and_cache_are_told_to_the_byte(tied: Path) -> None:
    (occupant,) = TorchEngine().footprint(tied, Resources(), WORK).occupants
    told = {each.what: each.bytes for each in occupant.holdings}
    assert told["weights"] == numbers(Qwen2ForCausalLM.from_pretrained(tied).parameters())
    assert told["keys and values of 2,048 tokens"] == 2048 * 2 * 4 * 2 * 16 * 4


def test_vllms_take_their_share_of_a_gpu_and_have_one_file_of_weights_between_them(tied: Path) -> None:
    weights = numbers(Qwen2ForCausalLM.from_pretrained(tied).parameters()) // 2
    work = replace(WORK, device_memory=10**9)
    engine = VLLMEngine(VLLMEngine.Config(engines=2, gpu_memory=0.5))
    occupants = engine.footprint(tied, Resources(device="cuda:1"), work).occupants
    handover, first, second = occupants
    assert (handover.device, first.device, second.device) == ("cpu", "cuda:1", "cuda:2")
    for each in (first, second):
        assert sum(one.bytes for one in each.at(each.device, "playing")) == 10**9 // 2
        assert not each.at(each.device, "learning")
        assert sum(one.bytes for one in each.at("cpu", "learning")) >= weights
    held = {load.moment: load.bytes for load in loads(occupants, overlapping=False)["cpu"]}
    assert (held["playing"], held["learning"], held["handing over"]) == (weights, 3 * weights, 3 * weights)


def test_vllm_on_the_cpu_keeps_weights_and_cache(tied: Path) -> None:
    (occupant,) = VLLMEngine(VLLMEngine.Config(kv_cache_gb=0.5)).footprint(tied, Resources(), WORK).occupants
    weights = numbers(Qwen2ForCausalLM.from_pretrained(tied).parameters())
    assert [each.bytes for each in occupant.at("cpu", "learning")] == [weights, 2**29]


# What a rank has of its models, as FSDP2 splits them, and what it takes to split the actor.
RANK = """
import json, sys
from agentrl.interfaces import Resources
from agentrl_ppo import PPO
from agentrl_torch import rehearsal
from agentrl_torch.config import TorchConfig
from agentrl_torch.fsdp import FSDP
from agentrl_torch.metrics import Tally
from agentrl_torch.training import Training
from agentrl_torch.world import join
from test_footprints import Tracker

class Watched(FSDP):
    def learner(self, recipe, dtype):
        with Tracker(recipe.module) as tracker:
            found = super().learner(recipe, dtype)
        if recipe.name == "actor":
            self.most = tracker.most
        return found

rank, meeting, model, options = int(sys.argv[1]), sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
needs = frozenset({"reference", "values"})
config = TorchConfig(ranks=2, audit_threshold=1e9, **options)
training = Training(config, sharding := Watched(), join(rank, 2, meeting, "cpu"))
training.start(model, needs, 10, Resources())
batch, credits = rehearsal.batch_of(rehearsal.longest_groups(24, 1, 24, 2), values=True)
training.prepare(batch, needs)
training.step(batch, credits, PPO()).accumulate(batch.minibatches[0], Tally(), None)
here = lambda one: one.to_local() if hasattr(one, "to_local") else one
size = lambda tensors: sum(here(each).nbytes for each in tensors)
learners = training._learners.all
own = [each for one in learners for group in one.optimizer.param_groups for each in group["params"]]
gradients = size(each.grad for each in own)
for learner in learners:
    learner.step(1)
state = size(one for each in learners for kept in each.optimizer.state.values() for one in kept.values())
actor = dict(training.actor.named_parameters())
adapter = size(each for name, each in actor.items() if ".lora_" in name)
found = {
    "weights": size(actor.values()) - adapter,
    "adapter": adapter,
    "critic": size(training.critic.parameters()),
    "gradients": gradients,
    "optimizer state": state,
    "splitting": sharding.most,
}
print(json.dumps(found))
"""


@pytest.mark.parametrize(
    "lora", [{}, pytest.param(SOME_LAYERS, marks=pytest.mark.slow)], ids=["all weights", "lora"]
)
def test_what_a_rank_has_is_told_to_the_byte(lora: dict[str, Any], untied: Path, tmp_path: Path) -> None:
    if lora:
        pytest.importorskip("peft", reason="install agentrl's extra 'peft'")
    options = {"lora": lora, "critic": {"warmup_updates": 0}}
    trainer = TorchTrainer(TorchTrainer.Config(ranks=2, **options))
    needs = frozenset({"reference", "values"})
    first, second = trainer.footprint(untied, needs, Resources(), WORK).occupants
    told = {each.what: each.bytes for each in first.holdings}
    assert told.get("reference") == (None if lora else told["weights"])
    narrow = tmp_path / "narrow"
    Qwen2ForCausalLM.from_pretrained(untied, dtype=torch.bfloat16).save_pretrained(narrow)
    found, _ = in_two_ranks(RANK, tmp_path, str(narrow), json.dumps(options))
    most = found.pop("splitting") - found["weights"] - found["adapter"]
    assert most == 0 if lora else 0.5 < most / told["layers, before they are split"] < 1
    assert found == {name: told.get(name, 0) for name in found}
    assert second.name == "trainer, rank 1"


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zero_splits_what_its_stage_says_and_what_is_offloaded_lies_elsewhere(
    untied: Path, stage: int
) -> None:
    def held(**options: Any) -> dict[str, Holding]:
        trainer = DeepSpeedTrainer(DeepSpeedTrainer.Config(stage=stage, ranks=2, **options))
        first, _ = trainer.footprint(untied, frozenset(), Resources(device="cuda"), WORK).occupants
        return {each.what: each for each in first.holdings}

    numbers_of_all = sum(each.numel() for each in Qwen2ForCausalLM.from_pretrained(untied).parameters())
    found = held()
    assert found["optimizer state"].bytes == numbers_of_all * 12 // 2
    assert found["gradients"].bytes == numbers_of_all * 2 // (1 if stage == 1 else 2)
    assert found["weights"].bytes == numbers_of_all * 2 // (2 if stage == 3 else 1)
    assert found["optimizer state"].device is None
    assert held(offload_optimizer="cpu")["optimizer state"].device == "cpu"


def test_a_model_that_cannot_be_reached_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The variable of this name was read when the library was imported.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match=r"nothing is known of the model .*give --model a folder"):
        TorchTrainer().footprint("nobody/nothing", frozenset(), Resources(), WORK)
    with pytest.raises(UsageError, match="nothing is known of the model"):
        TorchEngine().footprint(tmp_path, Resources(), WORK)
