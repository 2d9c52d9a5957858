"""The engine against the plainest possible one: no cache, one sequence at a time."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
)

from agentrl.errors import AgentRLError, UsageError
from agentrl.interfaces import Resources
from agentrl.types import Completion, Sampling
from agentrl_torch import TorchEngine, partial_attention
from agentrl_torch.fitting import _logits_by_pieces, fit
from agentrl_torch.generation import Generator
from agentrl_torch.sampling import uniform
from agentrl_torch.sequences import Request
from agentrl_torch.weights import load_into

VOCAB = 300
END = 1
NEVER = "\x00"
torch.set_num_threads(1)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, and a few merges, so that some tokens hold several characters."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<pad>", "<end>", *alphabet, "th", "the", "er", "re", "ab", "bc", "cd"]
    merges = [("t", "h"), ("th", "e"), ("e", "r"), ("r", "e"), ("a", "b"), ("b", "c"), ("c", "d")]
    tokenizer = Tokenizer(models.BPE({word: index for index, word in enumerate(words)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>")
    fast.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return fast


def make_model(kind: str, **options: Any) -> Any:
    sizes = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}
    ends = {"eos_token_id": END, "bos_token_id": None, "pad_token_id": 0}
    config, model = {"qwen": (Qwen2Config, Qwen2ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}[kind]
    torch.manual_seed(0)
    made = model(config(**{**sizes, **heads, **ends, "tie_word_embeddings": kind == "llama", **options}))
    for parameter in made.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.3)
    return made


def save(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["qwen", "llama"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(make_model(request.param), tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(make_model("qwen"), tmp_path_factory.mktemp("qwen"))


def start(path: Path, **config: Any) -> TorchEngine:
    engine = TorchEngine(TorchEngine.Config(**{"min_shared_prefix": 4, **config}))
    asyncio.run(engine.start(path, Resources()))
    return engine


@pytest.fixture
def engine(qwen: Path) -> Iterator[TorchEngine]:
    made = start(qwen)
    yield made
    asyncio.run(made.close())


class Plain:
    """One sequence at a time, everything computed anew for every token."""

    def __init__(self, path: Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(path).eval()

    def logprobs(self, ids: list[int], temperature: float = 1.0) -> torch.Tensor:
        with torch.inference_mode():
            return torch.log_softmax(self.model(torch.tensor([ids])).logits[0].float() / temperature, -1)

    def generate(self, ids: list[int], sampling: Sampling) -> list[int]:
        ids, first = list(ids), len(ids)
        while len(ids) - first < sampling.max_tokens:
            ids.append(self._draw(self.logprobs(ids)[-1].double().numpy(), sampling, len(ids)))
            if ids[-1] == END:
                break
        return ids[first:]

    def _draw(self, logprobs: Any, sampling: Sampling, position: int) -> int:
        if sampling.temperature == 0:
            return int(logprobs.argmax())
        probs = np.exp(logprobs / sampling.temperature)
        probs /= probs.sum()
        order = np.argsort(-probs, kind="stable")
        before = np.cumsum(probs[order]) - probs[order]
        probs[order[before >= sampling.top_p]] = 0
        number = uniform(np.array([sampling.seed], dtype=np.uint64), [position])[0]
        return int(np.searchsorted(np.cumsum(probs), number * probs.sum(), side="right"))

    def check(self, ids: list[int], completion: Completion) -> None:
        full = self.logprobs(ids + completion.token_ids, completion.temperature)[len(ids) - 1 : -1]
        expected = full.gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-5, rtol=1e-5)


def some_ids(seed: int, length: int) -> list[int]:
    return [int(i) for i in np.random.default_rng(seed).integers(2, VOCAB, length)]


async def together(*calls: Coroutine[Any, Any, Completion]) -> list[Completion]:
    return list(await asyncio.gather(*calls))


def count_tokens(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the number of tokens of every forward."""
    counts: list[int] = []
    model = engine._loaded().model
    forward = model.forward

    def counting(*args: Any, **options: Any) -> Any:
        counts.append(options["input_ids"].shape[1])
        return forward(*args, **options)

    monkeypatch.setattr(model, "forward", counting)
    return counts


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


PROMPTS = [some_ids(100, 40), some_ids(100, 25) + some_ids(101, 20), some_ids(102, 12), some_ids(100, 6)]
SESSIONS = 6
ACTION = st.tuples(
    st.integers(0, SESSIONS - 1),
    st.sampled_from(["go on", "go on", "go on", "restart", "rewind", "release", "cancel"]),
    st.sampled_from(PROMPTS),
    st.integers(1, 9),  # tokens to observe, and to sample
)


@pytest.fixture(scope="module")
def tight_engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[TorchEngine, Plain]]]:
    """Engines that are short of everything: rows, tokens a forward, memory."""
    made = []
    for kind in ("qwen", "llama"):
        folder = save(make_model(kind), tmp_path_factory.mktemp(kind))
        for limits in ({"max_batch": 3, "max_prefill": 16, "kv_cache_tokens": 120}, {"min_shared_prefix": 8}):
            made.append((start(folder, **limits), Plain(folder)))
    yield made
    for engine, _ in made:
        asyncio.run(engine.close())


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(which=st.integers(0, 3), rounds=st.lists(st.lists(ACTION, max_size=6), min_size=1, max_size=12))
def test_logprobs_are_those_of_a_full_forward_whatever_happens_between_the_forwards(
    tight_engines: list[tuple[TorchEngine, Plain]],
    which: int,
    rounds: list[list[tuple[int, str, list[int], int]]],
) -> None:
    engine, plain = tight_engines[which]
    play = Play(engine._loaded(), plain)
    for number, actions in enumerate(rounds):
        play.act(number, actions)
        play.run(forwards=1)
    play.run(forwards=1000)
    play.generator.run([], [f"s{session}" for session in range(SESSIONS)], lambda: True)
    assert not play.generator.busy
    assert play.generator.store.sessions == {}
    assert play.generator.store.prefixes == []


class Play:
    """Asks a generator for things between its forwards, and checks all that it answers."""

    def __init__(self, generator: Generator, plain: Plain) -> None:
        self.generator, self.plain = generator, plain
        self.history: dict[str, list[int]] = {}
        self.asked: dict[str, Request] = {}
        self.arrived: list[Request] = []
        self.released: list[str] = []

    def act(self, number: int, actions: list[tuple[int, str, list[int], int]]) -> None:
        for index, what, prompt, length in actions:
            session = f"s{index}"
            if session in self.asked:
                self.asked[session].cancelled |= what == "cancel"
            elif what == "release":
                self.released.append(session)
            else:
                ids = self.history.get(session, prompt) if what != "restart" else prompt
                ids = ids[: max(1, len(ids) - 2 * length)] if what == "rewind" else ids
                self._ask(session, ids + some_ids(number, length), Sampling(max_tokens=length, seed=number))

    def _ask(self, session: str, ids: list[int], sampling: Sampling) -> None:
        self.asked[session] = Request(ids, sampling, session)
        self.arrived.append(self.asked[session])

    def run(self, forwards: int) -> None:
        for _ in range(forwards):
            done = self.generator.run(self.arrived, self.released, lambda: True)
            self.arrived, self.released = [], []
            for request in done:
                self.plain.check(request.token_ids, Completion(request.sampled, request.logprobs, "length"))
                self.history[request.session] = request.token_ids + request.sampled
            gone = [name for name, request in self.asked.items() if request in done or request.cancelled]
            for name in gone:
                del self.asked[name]
            if not self.generator.busy:
                break


def test_a_prefix_that_is_only_half_read_is_not_copied(qwen: Path) -> None:
    engine = start(qwen, max_prefill=8)
    play = Play(engine._loaded(), Plain(qwen))
    for session in ("a", "b"):
        play._ask(session, some_ids(0, 40), Sampling(max_tokens=2))
    play.run(forwards=2)
    play._ask("c", some_ids(0, 30) + some_ids(1, 5), Sampling(max_tokens=2))
    play.run(forwards=100)
    assert play.asked == {}
    asyncio.run(engine.close())


def test_idle_sessions_are_forgotten_when_there_are_too_many_and_read_again(
    qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, wish = start(qwen, kv_cache_tokens=100), Sampling(max_tokens=2, seed=1)
    first = [asyncio.run(engine.generate(some_ids(i, 30), wish, f"s{i}")).token_ids for i in range(6)]
    assert list(engine._loaded().store.sessions) == ["s3", "s4", "s5"]
    counts = count_tokens(engine, monkeypatch)
    for index in (5, 0):
        ids = some_ids(index, 30) + first[index] + [7]
        Plain(qwen).check(ids, asyncio.run(engine.generate(ids, wish, f"s{index}")))
    assert counts == [2, 1, 33, 1]
    asyncio.run(engine.close())


def test_a_turn_costs_its_new_tokens_only(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = count_tokens(engine, monkeypatch)
    ids = some_ids(0, 50)
    sampled = asyncio.run(engine.generate(ids, Sampling(max_tokens=5, seed=8), "s")).token_ids
    assert counts == [50, 1, 1, 1, 1]
    counts.clear()
    asyncio.run(engine.generate([*ids, *sampled, *some_ids(1, 10)], Sampling(max_tokens=2, seed=8), "s"))
    assert counts == [11, 1]


def test_a_group_reads_its_prompt_once(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = count_tokens(engine, monkeypatch)
    calls = [engine.generate(some_ids(0, 50), Sampling(max_tokens=3, seed=i), f"s{i}") for i in range(4)]
    asyncio.run(together(*calls))
    assert counts == [49, 4, 4, 4]


def test_prompts_that_share_a_system_prompt_and_a_task_read_each_once(
    engine: TorchEngine, qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = count_tokens(engine, monkeypatch)
    prompts = [some_ids(0, 30) + some_ids(task, 20) for task in (1, 2) for _ in range(3)]
    calls = [engine.generate(ids, Sampling(max_tokens=3, seed=i), f"s{i}") for i, ids in enumerate(prompts)]
    completions = asyncio.run(together(*calls))
    assert counts == [30, 38, 6, 6, 6]
    for ids, completion in zip(prompts, completions, strict=True):
        Plain(qwen).check(ids, completion)


def test_members_of_a_group_that_come_one_by_one_still_share(
    engine: TorchEngine, qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = count_tokens(engine, monkeypatch)
    for index in range(3):
        ids = some_ids(0, 50) + some_ids(index + 1, 4)
        completion = asyncio.run(engine.generate(ids, Sampling(max_tokens=2, seed=index), f"s{index}"))
        Plain(qwen).check(ids, completion)
    assert counts == [54, 1, 4, 1, 4, 1]


def test_the_cache_is_given_back_when_sessions_are_released(engine: TorchEngine) -> None:
    calls = [engine.generate(some_ids(0, 50), Sampling(max_tokens=3, seed=i), f"s{i}") for i in range(4)]
    asyncio.run(together(*calls))
    for index in range(4):
        engine.release(f"s{index}")
    asyncio.run(engine.generate(some_ids(1, 5), Sampling(max_tokens=1), "other"))
    store = engine._loaded().store
    assert list(store.sessions) == ["other"]
    assert store.prefixes == []


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


def test_a_completion_does_not_depend_on_what_else_is_in_the_batch(engine: TorchEngine) -> None:
    ids, wish = some_ids(0, 20), Sampling(max_tokens=15, seed=5)
    alone = asyncio.run(engine.generate(ids, wish, "alone"))
    others = [
        engine.generate(some_ids(i, 7 * i), Sampling(max_tokens=9, seed=i), f"s{i}") for i in range(1, 9)
    ]
    crowded = asyncio.run(together(engine.generate(ids, wish, "crowded"), *others))[0]
    assert crowded.token_ids == alone.token_ids
    assert crowded.logprobs == pytest.approx(alone.logprobs, abs=1e-5)


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


def drop_a_name(weights: dict[str, Any]) -> None:
    del weights["model.norm.weight"]


def add_a_name(weights: dict[str, Any]) -> None:
    weights["model.extra"] = torch.zeros(1)


def change_a_shape(weights: dict[str, Any]) -> None:
    weights["model.norm.weight"] = torch.zeros(7)


@pytest.mark.parametrize("break_it", [drop_a_name, add_a_name, change_a_shape])
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


def test_a_cancelled_request_frees_its_row_and_disturbs_nobody(engine: TorchEngine) -> None:
    ids, wish = some_ids(0, 20), Sampling(max_tokens=100, seed=3)
    expected = asyncio.run(engine.generate(ids, wish, "alone"))

    async def scene() -> Completion:
        doomed = [
            asyncio.create_task(engine.generate(some_ids(i, 9), Sampling(max_tokens=400), f"d{i}"))
            for i in range(3)
        ]
        kept = asyncio.create_task(engine.generate(ids, wish, "kept"))
        await asyncio.sleep(0.03)
        for task in doomed:
            task.cancel()
            engine.release(f"d{doomed.index(task)}")
        return await kept

    completion = asyncio.run(scene())
    assert completion.token_ids == expected.token_ids
    asyncio.run(engine.generate(ids, Sampling(max_tokens=1), "last"))
    assert set(engine._loaded().store.sessions) == {"alone", "kept", "last"}
    assert not engine._loaded().busy


def test_a_session_can_go_on_after_its_request_was_cancelled(engine: TorchEngine, qwen: Path) -> None:
    ids = some_ids(0, 20)

    async def scene() -> Completion:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(engine.generate(ids, Sampling(max_tokens=450), "s"), 0.03)
        return await engine.generate([*ids, 7, 8], Sampling(max_tokens=4), "s")

    Plain(qwen).check([*ids, 7, 8], asyncio.run(scene()))


def test_a_failure_reaches_every_caller_and_the_engine_goes_on(
    engine: TorchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> list[Any]:
        calls = [engine.generate(some_ids(i, 9), Sampling(max_tokens=5), f"s{i}") for i in range(3)]
        return await asyncio.gather(*calls, return_exceptions=True)

    expected = asyncio.run(scene())
    with monkeypatch.context() as patch:
        patch.setattr(engine._loaded().model, "forward", lambda **_: 1 / 0)
        failures = asyncio.run(scene())
    assert [type(failure) for failure in failures] == [RuntimeError] * 3
    assert all("division by zero" in str(failure) for failure in failures)
    assert asyncio.run(scene()) == expected


def test_a_failure_while_cleaning_up_reaches_the_callers_too(
    engine: TorchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine._loaded().model, "forward", lambda **_: 1 / 0)
    monkeypatch.setattr(engine._loaded(), "reset", lambda: [][0])
    with pytest.raises(RuntimeError, match="index out of range"):
        asyncio.run(engine.generate(some_ids(0, 9), Sampling(max_tokens=5), "s"))


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


def test_a_request_that_arrives_later_joins_and_may_finish_first(engine: TorchEngine) -> None:
    async def scene() -> list[str]:
        order: list[str] = []

        async def ask(name: str, length: int) -> None:
            await engine.generate(some_ids(length, 5), Sampling(max_tokens=length), name)
            order.append(name)

        long = asyncio.create_task(ask("long", 480))
        await asyncio.sleep(0.02)
        await ask("short", 2)
        await long
        return order

    assert asyncio.run(scene()) == ["short", "long"]


def test_the_event_loop_stays_responsive_while_the_engine_works(engine: TorchEngine) -> None:
    async def scene() -> int:
        task = asyncio.create_task(engine.generate(some_ids(0, 5), Sampling(max_tokens=400), "s"))
        ticks = 0
        while not task.done():
            await asyncio.sleep(0.001)
            ticks += 1
        return ticks

    assert asyncio.run(scene()) > 20


def test_two_requests_of_one_session_are_served_one_after_the_other(engine: TorchEngine, qwen: Path) -> None:
    ids = some_ids(0, 9)
    calls = [engine.generate(ids, Sampling(max_tokens=4, seed=seed), "same") for seed in range(3)]
    for completion in asyncio.run(together(*calls)):
        Plain(qwen).check(ids, completion)


@pytest.mark.parametrize(("length", "wanted"), [(0, 5), (5, 0), (500, 13)])
def test_what_cannot_be_continued_is_refused(engine: TorchEngine, length: int, wanted: int) -> None:
    with pytest.raises(UsageError):
        asyncio.run(engine.generate(some_ids(0, length), Sampling(max_tokens=wanted), "s"))


def test_an_id_that_the_model_does_not_have_is_refused(engine: TorchEngine) -> None:
    with pytest.raises(UsageError, match="vocabulary ends at 299"):
        asyncio.run(engine.generate([5, VOCAB], Sampling(max_tokens=1), "s"))


def test_an_engine_can_be_closed_twice_and_then_says_that_it_is_closed(qwen: Path) -> None:
    engine = start(qwen)

    async def scene() -> Any:
        task = asyncio.create_task(engine.generate([5], Sampling(max_tokens=400), "s"))
        await asyncio.sleep(0.01)
        await engine.close()
        await engine.close()
        return (await asyncio.gather(task, return_exceptions=True))[0]

    assert isinstance(asyncio.run(scene()), AgentRLError)
    with pytest.raises(AgentRLError, match="not running"):
        asyncio.run(engine.generate([5], Sampling(max_tokens=1), "s"))


def test_sleep_gives_the_memory_back_and_generation_goes_on(engine: TorchEngine, qwen: Path) -> None:
    ids = some_ids(0, 30)
    first = asyncio.run(engine.generate(ids, Sampling(max_tokens=3), "s"))
    asyncio.run(engine.sleep())
    assert engine._loaded().store.tails.keys == []
    asyncio.run(engine.wake())
    again = [*ids, *first.token_ids, 9]
    Plain(qwen).check(again, asyncio.run(engine.generate(again, Sampling(max_tokens=3), "s")))


def test_a_model_whose_attention_is_not_supported_is_refused_at_the_start(tmp_path: Path) -> None:
    windows = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}
    folder = save(make_model("qwen", **windows), tmp_path)
    with pytest.raises(UsageError, match="sliding_window"):
        start(folder)


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


def test_torch_uses_the_threads_it_was_given_in_the_thread_that_computes(qwen: Path) -> None:
    engine = TorchEngine()
    asyncio.run(engine.start(qwen, Resources(threads=2)))
    executor: ThreadPoolExecutor = engine._running()._executor
    assert executor.submit(torch.get_num_threads).result() == 2
    asyncio.run(engine.close())
    torch.set_num_threads(1)


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
