"""An update that is only tried out moves nothing, and an engine that makes room forgets it again."""

import asyncio
import random
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from agentrl import Credit, Group, Sampling, Segment, Span, Task, Trajectory
from agentrl.errors import OutOfMemory
from agentrl.interfaces import Resources
from agentrl_grpo import GRPO
from agentrl_ppo import PPO
from agentrl_tiny.tokenizer import build_tokenizer
from agentrl_torch import TorchEngine, TorchTrainer, memory
from two_ranks import in_two_ranks

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, tokenizer = tmp_path_factory.mktemp("model"), build_tokenizer()
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Qwen2Config(
        **shape, num_key_value_heads=2, vocab_size=len(tokenizer), max_position_embeddings=128
    )
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def play(seed: int) -> list[Group]:
    draw = random.Random(seed)
    members = []
    for _ in range(4):
        ids = [draw.randrange(2, 50) for _ in range(12)]
        members.append(Trajectory(Task("t"), segments=[Segment(ids, [Span(4, [-4.0] * 8, 0)])], reward=1.0))
    return [Group(Task("t"), members)]


def update(trainer: TorchTrainer, algorithm: Any, seed: int) -> dict[str, float]:
    batch = trainer.prepare(play(seed), algorithm.needs)
    returns = [0.5] * 8 if "values" in algorithm.needs else None
    credits = [[Credit([float(place)] * 8, returns) for place in range(4)]]
    found = trainer.update(batch, credits, algorithm)
    return {name: number for name, number in found.items() if not name.startswith("memory/")}


CASES: dict[str, tuple[dict[str, Any], Any]] = {
    "one process": ({}, GRPO(GRPO.Config(kl="k2", kl_coefficient=0.1))),
    "recomputed": ({"gradient_checkpointing": True, "dtype": "bfloat16"}, GRPO()),
    "lora": ({"lora": {"rank": 4}}, GRPO()),
    "critic": ({"critic": {"warmup_updates": 2, "warmup_until": 1.0}}, PPO()),
    "ranks": ({"ranks": 2}, GRPO()),
}


@pytest.mark.parametrize(
    "case", [pytest.param(each, marks=pytest.mark.slow) if each == "ranks" else each for each in CASES]
)
def test_weights_and_optimizer_go_on_as_if_nothing_had_been_tried(case: str, model: Path) -> None:
    options, algorithm = CASES[case]
    if "lora" in options:
        pytest.importorskip("peft", reason="install agentrl's extra 'peft'")
    found = []
    for tries in (False, True):
        config = TorchTrainer.Config(audit_threshold=1e9, learning_rate=1e-3, **options)
        trainer = TorchTrainer(config)
        trainer.start(model, algorithm.needs, 10, Resources())
        with closing(trainer):
            metrics = []
            for seed in range(2):
                if tries:
                    rehearsal = trainer.rehearse(64, 4, algorithm)
                    assert rehearsal is not None
                    # As many as are computed at once, but for what random ids happen to have in common.
                    assert 0 < rehearsal.before <= rehearsal.peak
                    assert 60 <= rehearsal.tokens <= 128 * 64
                metrics.append(update(trainer, algorithm, seed))
            found.append((metrics, {name: tensor.clone() for name, tensor in trainer.weights().items()}))
    (metrics, weights), (metrics_after, weights_after) = found
    assert metrics == metrics_after
    assert weights.keys() == weights_after.keys()
    assert all(torch.equal(weights[name], weights_after[name]) for name in weights)


# A machine with so much main memory for two ranks alone, who try out what they are advised.
SHARED = """
import json, sys
from agentrl.interfaces import Resources
from agentrl_grpo import GRPO
from agentrl_torch import memory, rehearsal
from agentrl_torch.config import TorchConfig
from agentrl_torch.fsdp import FSDP
from agentrl_torch.training import Training
from agentrl_torch.world import join

rank, meeting, model, whole = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
world = join(rank, 2, meeting, "cpu")
memory.free_memory = lambda: whole - sum(world.gather(memory._status("RssAnon")))
algorithm = GRPO()

def rehearse(tokens):
    training.config = training.config.model_copy(update={"micro_batch_tokens": tokens})
    batch, credits = rehearsal.batch_of(rehearsal.longest_groups(128, 10**4, tokens, 2), values=False)
    return training.rehearse(batch, credits, algorithm)

training = Training(TorchConfig(ranks=2, audit_threshold=1e9), FSDP(), world)
training.start(model, algorithm.needs, 10, Resources())
advised = rehearse(4096).budget()
rehearse(advised)
print(json.dumps([advised, memory._status("VmHWM")]))
"""


def test_what_two_ranks_of_one_machine_are_advised_fits_into_it_together(model: Path, tmp_path: Path) -> None:
    whole = 2 * 2**30
    (advised, first), (same, second) = in_two_ranks(SHARED, tmp_path, str(model), str(whole))
    assert advised == same > 4096
    assert 0.6 * whole < first + second < whole


@pytest.mark.parametrize(
    ("options", "algorithm"),
    [
        ({}, GRPO(GRPO.Config(correction="token"))),
        ({"old_logprobs": "recompute", "minibatches": 2}, GRPO()),
    ],
    ids=["corrected", "recomputed"],
)
def test_no_audit_takes_what_is_made_up_for_what_an_engine_said(
    options: dict[str, Any], algorithm: Any, model: Path
) -> None:
    trainer = TorchTrainer(TorchTrainer.Config(**options))
    trainer.start(model, algorithm.needs, 10, Resources())
    with closing(trainer):
        assert trainer.rehearse(64, 4, algorithm) is not None


def test_an_engine_that_has_made_room_samples_the_same(model: Path) -> None:
    async def sampled(tries: bool) -> list[list[int]]:
        engine = TorchEngine()
        await engine.start(model, Resources())
        try:
            if tries:
                await engine.try_room(128, 64)
            asked = (engine.generate([5, 6, 7], Sampling(max_tokens=20, seed=n), f"s{n}") for n in range(3))
            return [completion.token_ids for completion in await asyncio.gather(*asked)]
        finally:
            await engine.close()

    assert asyncio.run(sampled(True)) == asyncio.run(sampled(False))


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory.told("an update", ["less"]):
        raise RuntimeError("shapes differ")
    words = "not enough memory for an update; what saves some: less; then"
    with pytest.raises(OutOfMemory, match=words), memory.told("an update", ["less"]):
        torch.empty(2**60, dtype=torch.uint8)
