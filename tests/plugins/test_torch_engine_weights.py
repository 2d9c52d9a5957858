"""Which models and weights the engine takes, in which precision, and what it refuses."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
)

from agentrl.errors import AgentRLError, UsageError
from agentrl.types import Completion, Sampling
from agentrl_torch import TorchEngine
from agentrl_torch.fitting import _logits_by_pieces, fit
from agentrl_torch.weights import load_into
from plain_generation import END, VOCAB, Plain, make_model, save, some_ids, start, together
from small_models import MISFITS

# Models


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-5), ("bfloat16", 0.25)])
def test_the_model_can_be_run_in_another_precision(qwen: Path, dtype: str, tolerance: float) -> None:
    engine, ids = start(qwen, dtype=dtype), some_ids(0, 40)
    calls = [engine.generate(ids, Sampling(max_tokens=8, seed=i), f"s{i}") for i in range(3)]
    for completion in asyncio.run(together(*calls)):
        full = Plain(qwen).logprobs(ids + completion.token_ids)[39:-1]
        expected = full.gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0].tolist()
        assert completion.logprobs == pytest.approx(expected, abs=tolerance)
    asyncio.run(engine.close())


def test_models_of_other_families_run_unchanged(tmp_path: Path) -> None:
    sizes = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
    model = GPT2LMHeadModel(GPT2Config(**sizes, eos_token_id=END, bos_token_id=0))
    engine, ids = start(save(model, tmp_path)), some_ids(0, 20)
    calls = [engine.generate(ids, Sampling(max_tokens=8, seed=i), f"s{i}") for i in range(3)]
    for completion in asyncio.run(together(*calls)):
        Plain(tmp_path).check(ids, completion)
    asyncio.run(engine.load_weights(dict(model.named_parameters()), 1))
    asyncio.run(engine.close())


def test_a_model_with_recurrent_layers_is_refused_at_the_start(tmp_path: Path) -> None:
    sizes = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
    folder = save(MambaForCausalLM(MambaConfig(**sizes)), tmp_path)
    with pytest.raises(UsageError, match="not all of its layers"):
        start(folder)


def test_a_model_whose_attention_is_not_supported_is_refused_at_the_start(tmp_path: Path) -> None:
    windows = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}
    folder = save(make_model("qwen", **windows), tmp_path)
    with pytest.raises(UsageError, match="sliding_window"):
        start(folder)


# New weights


def test_new_weights_change_the_output_and_nothing_old_is_used(engine: TorchEngine, tmp_path: Path) -> None:
    ids, wish = some_ids(0, 40), Sampling(max_tokens=4, seed=2)
    calls = [engine.generate(ids, wish, f"s{i}") for i in range(3)]
    before = asyncio.run(together(*calls))[0]
    changed = make_model("qwen")
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)))
    asyncio.run(engine.load_weights(changed.state_dict(), 3))
    longer = ids + before.token_ids + some_ids(1, 5)
    after = asyncio.run(engine.generate(longer, wish, "s0"))
    assert (before.version, after.version) == (0, 3)
    Plain(save(changed, tmp_path)).check(longer, after)


def test_weights_wait_for_requests_in_work_and_later_requests_wait_for_them(engine: TorchEngine) -> None:
    async def scene() -> list[Completion]:
        first = asyncio.create_task(
            engine.generate(some_ids(0, 5), Sampling(max_tokens=300, seed=1), "first")
        )
        await asyncio.sleep(0.05)
        loading = asyncio.create_task(engine.load_weights(make_model("qwen").state_dict(), 1))
        await asyncio.sleep(0)
        second = asyncio.create_task(
            engine.generate(some_ids(0, 5), Sampling(max_tokens=3, seed=1), "second")
        )
        await loading
        return await together(_value(first), _value(second))

    assert [completion.version for completion in asyncio.run(scene())] == [0, 1]


async def _value(task: "asyncio.Task[Completion]") -> Completion:
    return await task


@pytest.mark.parametrize("break_it", MISFITS)
def test_weights_that_do_not_fit_are_refused_and_none_is_loaded(
    engine: TorchEngine, break_it: Callable[[dict[str, Any]], None]
) -> None:
    ids, wish = some_ids(0, 10), Sampling(max_tokens=5, seed=1)
    before = asyncio.run(engine.generate(ids, wish, "s"))
    engine.release("s")
    weights = {name: torch.zeros_like(tensor) for name, tensor in make_model("qwen").state_dict().items()}
    break_it(weights)
    with pytest.raises(AgentRLError, match=r"model\.(norm|extra)"):
        asyncio.run(engine.load_weights(weights, 1))
    assert asyncio.run(engine.generate(ids, wish, "s")) == before


def test_a_tied_weight_may_come_under_one_of_its_names(tmp_path: Path) -> None:
    folder = save(make_model("llama"), tmp_path)
    engine = start(folder)
    weights = dict(make_model("llama").state_dict())
    del weights["lm_head.weight"]
    asyncio.run(engine.load_weights(weights, 1))
    asyncio.run(engine.close())


def test_diverged_weights_are_an_error_and_leave_nothing_behind(engine: TorchEngine, qwen: Path) -> None:
    ids, wish = some_ids(0, 9), Sampling(max_tokens=5)
    broken = make_model("qwen")
    with torch.no_grad():
        broken.model.layers[0].self_attn.v_proj.weight.fill_(float("nan"))
    asyncio.run(engine.load_weights(broken.state_dict(), 1))
    with pytest.raises(AgentRLError, match="not numbers"):
        asyncio.run(engine.generate(ids, wish, "s"))
    asyncio.run(engine.load_weights(make_model("qwen").state_dict(), 2))
    Plain(qwen).check(ids, asyncio.run(engine.generate(ids, wish, "s")))


def test_closing_lets_nobody_wait_for_weights(qwen: Path) -> None:
    engine = start(qwen)

    async def scene() -> Any:
        asking = asyncio.create_task(engine.generate([5], Sampling(max_tokens=400), "s"))
        await asyncio.sleep(0.01)
        loading = asyncio.create_task(engine.load_weights(make_model("qwen").state_dict(), 1))
        await asyncio.sleep(0)
        await engine.close()
        return await asyncio.gather(asking, loading, return_exceptions=True)

    assert all(isinstance(failure, AgentRLError) for failure in asyncio.run(scene()))


# The short forward of the commonest decoder


class Unusual(Qwen2ForCausalLM):
    """Computes the same as its parent, under a name that nobody knows."""


@pytest.mark.parametrize(
    ("kind", "dtype", "short"),
    [
        (Qwen2ForCausalLM, torch.float32, True),
        (LlamaForCausalLM, torch.float64, True),
        (Qwen3ForCausalLM, torch.float32, True),
        (Qwen3ForCausalLM, torch.bfloat16, True),
        (Unusual, torch.float32, False),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_common_decoders_take_the_short_forward_and_new_weights_reach_it(
    kind: Any, dtype: torch.dtype, short: bool
) -> None:
    sizes = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    model, other = (kind(kind.config_class(**sizes)).to(dtype).eval().requires_grad_(False) for _ in range(2))
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    spec = fit(model)
    assert ("forward" in vars(model)) == short
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == shapes
    for parameter in other.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.2)
    load_into(model, other.state_dict())
    ids = some_ids(0, 12)
    with torch.inference_mode():
        expected = other(torch.tensor([ids])).logits[0, -1].float()
        found = _logits_by_pieces(model, spec, ids)
    assert torch.allclose(found, expected, atol=0.15 if dtype == torch.bfloat16 else 1e-4)


def test_a_short_forward_that_computes_something_else_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentrl_torch.plain_decoder._turned", lambda heads, cos, sin: heads)
    model = make_model("qwen").eval().requires_grad_(False)
    fit(model)
    assert "forward" not in vars(model)
