"""The engine draws what the plainest possible one draws, whatever else is in the batch, in every run."""

import asyncio
from pathlib import Path

import pytest
import torch

from agentrl.types import Completion, Sampling
from agentrl_torch import TorchEngine, partial_attention
from plain_generation import (
    END,
    Plain,
    count_tokens,
    make_model,
    save,
    some_ids,
    start,
    together,
)
from small_models import make_tokenizer

NEVER = "\x00"


@pytest.fixture(scope="module", params=["qwen", "llama"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(make_model(request.param), tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize(
    ("temperature", "top_p"), [(0, 1.0), (1.0, 1.0), (0.7, 1.0), (1.0, 0.8), (1.3, 0.5)], ids=str
)
def test_a_batch_draws_the_tokens_that_plain_generation_draws(
    path: Path, temperature: float, top_p: float
) -> None:
    plain, engine = Plain(path), start(path)
    prompts = [some_ids(seed, length) for seed, length in enumerate((1, 2, 5, 9, 30))]
    wishes = [Sampling(temperature, top_p, 12, seed=seed) for seed in range(len(prompts))]
    calls = [engine.generate(ids, wish, f"s{wish.seed}") for ids, wish in zip(prompts, wishes, strict=True)]
    completions = asyncio.run(together(*calls))
    for ids, wish, completion in zip(prompts, wishes, completions, strict=True):
        assert completion.token_ids == plain.generate(ids, wish)
        plain.check(ids, completion)
        assert completion.temperature == (temperature or 1)
    asyncio.run(engine.close())


def test_rows_with_different_settings_do_not_influence_one_another(engine: TorchEngine, qwen: Path) -> None:
    wishes = [Sampling(0, 1.0, 6), Sampling(1.0, 1.0, 6, seed=3), Sampling(0.5, 0.9, 6, seed=4)]
    ids = some_ids(0, 10)
    calls = [engine.generate(ids, wish, f"s{index}") for index, wish in enumerate(wishes)]
    completions = asyncio.run(together(*calls))
    assert [c.token_ids for c in completions] == [Plain(qwen).generate(ids, wish) for wish in wishes]


def test_a_completion_does_not_depend_on_what_else_is_in_the_batch(engine: TorchEngine) -> None:
    ids, wish = some_ids(0, 20), Sampling(max_tokens=15, seed=5)
    alone = asyncio.run(engine.generate(ids, wish, "alone"))
    others = [
        engine.generate(some_ids(i, 7 * i), Sampling(max_tokens=9, seed=i), f"s{i}") for i in range(1, 9)
    ]
    crowded = asyncio.run(together(engine.generate(ids, wish, "crowded"), *others))[0]
    assert crowded.token_ids == alone.token_ids
    assert crowded.logprobs == pytest.approx(alone.logprobs, abs=1e-5)


def test_the_engine_is_exact_where_the_cpu_kernel_is_not_at_hand(
    qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial_attention, "has_kernel", lambda *_: False)
    engine, plain = start(qwen, max_prefill=16), Plain(qwen)
    for turn in range(2):
        prompts = [some_ids(0, 40 + turn) + some_ids(i, 9) for i in range(4)]
        calls = [engine.generate(ids, Sampling(max_tokens=5), f"s{i}") for i, ids in enumerate(prompts)]
        for ids, completion in zip(prompts, asyncio.run(together(*calls)), strict=True):
            plain.check(ids, completion)
    asyncio.run(engine.close())


# The same in every run


def test_the_same_requests_give_bit_identical_results_on_every_run(qwen: Path) -> None:
    def run(engine: TorchEngine) -> list[Completion]:
        calls = [
            engine.generate(some_ids(i // 3, 20 + i // 3), Sampling(max_tokens=5 + i, seed=i), f"s{i}")
            for i in range(7)
        ]
        return asyncio.run(together(*calls))

    first, second = start(qwen), start(qwen)
    expected = run(first)
    asyncio.run(
        together(*(second.generate(some_ids(i, 90), Sampling(max_tokens=200), f"x{i}") for i in range(30)))
    )
    asyncio.run(second.load_weights(make_model("qwen").state_dict(), 0))
    assert run(second) == expected
    for engine in (first, second):
        asyncio.run(engine.close())


def test_envs_that_answer_at_once_make_the_same_batches_in_every_run(
    qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def episode(engine: TorchEngine, index: int) -> list[Completion]:
        ids, completions = some_ids(index // 2, 15), []
        for turn in range(3):
            for _ in range(7 * index % 30):
                await asyncio.sleep(0)  # an env in this process takes some passes of the event loop
            wish = Sampling(max_tokens=3 + (index + turn) % 4, seed=10 * index + turn)
            completions.append(await engine.generate(ids, wish, f"s{index}"))
            ids = ids + completions[-1].token_ids + some_ids(turn, 6)
        engine.release(f"s{index}")
        return completions

    async def run(engine: TorchEngine) -> list[list[Completion]]:
        return await asyncio.gather(*(episode(engine, index) for index in range(6)))

    results, batches = [], []
    for _ in range(2):
        engine = start(qwen)
        with monkeypatch.context() as patch:
            batches.append(count_tokens(engine, patch))
            results.append(asyncio.run(run(engine)))
        asyncio.run(engine.close())
    assert batches[0] == batches[1]
    assert batches[0][0] == 3 * 14  # nobody came too late for the first forward
    assert results[0] == results[1]


# Where a completion ends


def text_of(ids: list[int]) -> str:
    return str(make_tokenizer().decode(ids, skip_special_tokens=False))


def test_generation_ends_with_the_token_that_completes_a_stop_string(engine: TorchEngine) -> None:
    ids = some_ids(3, 10)
    free = asyncio.run(engine.generate(ids, Sampling(max_tokens=40, seed=1), "free"))
    start, text = next((i, t) for i in range(40) if "\ufffd" not in (t := text_of(free.token_ids[i : i + 3])))
    assert text not in text_of(free.token_ids[: start + 2])
    stopped = asyncio.run(
        engine.generate(ids, Sampling(max_tokens=40, seed=1, stop=(NEVER, text)), "stopped")
    )
    assert stopped.stop == "stop"
    assert stopped.token_ids == free.token_ids[: start + 3]
    assert free.stop == "length" or free.token_ids[-1] == END


def test_the_end_of_turn_token_ends_generation_and_stays(engine: TorchEngine, qwen: Path) -> None:
    model = make_model("qwen")
    with torch.no_grad():
        model.lm_head.weight[END] = 0
        for parameter in (model.model.norm.weight, model.lm_head.weight):
            parameter.mul_(0.01)  # nearly uniform: the end comes within a few hundred tokens
    asyncio.run(engine.load_weights(model.state_dict(), 1))
    completions = [
        asyncio.run(engine.generate([5, 6], Sampling(max_tokens=400, seed=seed), f"s{seed}"))
        for seed in range(4)
    ]
    assert any(completion.stop == "stop" for completion in completions)
    for completion in completions:
        assert END not in completion.token_ids[:-1]
        assert (completion.stop == "stop") == (completion.token_ids[-1] == END)
