"""What the engine keeps of sessions and of prefixes: nothing is read twice, and what is kept stays exact."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentrl.types import Completion, Sampling
from agentrl_torch import TorchEngine
from agentrl_torch.generation import Generator
from agentrl_torch.sequences import Request
from plain_generation import Plain, count_tokens, make_model, save, some_ids, start, together

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


def test_sleep_gives_the_memory_back_and_generation_goes_on(engine: TorchEngine, qwen: Path) -> None:
    ids = some_ids(0, 30)
    first = asyncio.run(engine.generate(ids, Sampling(max_tokens=3), "s"))
    asyncio.run(engine.sleep())
    assert engine._loaded().store.tails.keys == []
    asyncio.run(engine.wake())
    again = [*ids, *first.token_ids, 9]
    Plain(qwen).check(again, asyncio.run(engine.generate(again, Sampling(max_tokens=3), "s")))
