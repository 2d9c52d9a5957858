"""The rooms of the engine that stand on their own."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentrl.stopping import StopRule
from agentrl.types import Sampling
from agentrl_torch.partial_attention import _attend_by_matmul, attend
from agentrl_torch.sampling import Sampler, uniform
from agentrl_torch.sequences import common_length
from agentrl_torch.single_tokens import Row, serve

torch.set_num_threads(1)
CPU = torch.device("cpu")


def draws(probs: list[float], setting: Sampling, count: int = 40_000) -> list[float]:
    """Return how often each token was drawn, as a share."""
    sampler = Sampler([Sampling(setting.temperature, setting.top_p, seed=seed) for seed in range(count)], CPU)
    logits = torch.tensor(probs).log().expand(count, -1)
    tokens, _ = sampler.draw(logits, [17] * count)
    return (torch.bincount(tokens, minlength=len(probs)).double() / count).tolist()


def test_tokens_are_drawn_with_the_probabilities_of_the_softmax() -> None:
    probs = [0.5, 0.25, 0.125, 0.1, 0.02, 0.005, 0.0]
    found = draws(probs, Sampling())
    chi_square = sum(40_000 * (f - p) ** 2 / p for f, p in zip(found, probs, strict=True) if p)
    assert chi_square < 20.5  # 5 degrees of freedom, one in a thousand
    assert found[-1] == 0


def test_temperature_sharpens_and_top_p_cuts_the_tail() -> None:
    probs = [0.4, 0.3, 0.2, 0.1]
    assert draws(probs, Sampling(temperature=0.5)) == pytest.approx(
        [16 / 30, 9 / 30, 4 / 30, 1 / 30], abs=0.01
    )
    assert draws(probs, Sampling(top_p=0.6)) == pytest.approx([4 / 7, 3 / 7, 0, 0], abs=0.01)
    assert draws(probs, Sampling(top_p=0.01)) == [1, 0, 0, 0]


def test_draws_of_successive_positions_and_seeds_are_independent() -> None:
    numbers = np.stack(
        [uniform(np.arange(300, dtype=np.uint64), [position] * 300) for position in range(300)]
    )
    for shifted in (numbers[1:, :-1], numbers[:-1, 1:], numbers[1:, 1:], numbers[:-1, :-1]):
        assert abs(np.corrcoef(shifted.ravel(), np.roll(shifted, 1).ravel())[0, 1]) < 0.015
    assert abs(np.corrcoef(numbers[1:, :-1].ravel(), numbers[:-1, 1:].ravel())[0, 1]) < 0.015
    assert np.histogram(numbers, 20)[0] == pytest.approx([4500] * 20, rel=0.06)
    assert 0 <= numbers.min() < numbers.max() < 1


def test_a_negative_or_huge_seed_is_a_seed() -> None:
    Sampler([Sampling(seed=-1), Sampling(seed=2**200)], CPU).draw(torch.zeros(2, 5), [0, 0])


def test_logprobs_are_of_the_tempered_but_whole_distribution_and_the_greedy_token_is_the_likeliest() -> None:
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    settings = [Sampling(temperature=0), Sampling(temperature=2.0, seed=1), Sampling(top_p=0.5, seed=2)]
    tokens, logprobs = Sampler(settings, CPU).draw(logits, [0, 1, 2])
    tempered = logits / torch.tensor([[1.0], [2.0], [1.0]])
    torch.testing.assert_close(logprobs, torch.log_softmax(tempered, -1).gather(1, tokens[:, None])[:, 0])
    assert tokens[0] == logits[0].argmax()


class Letters:
    """A tokenizer of pieces of text; id 5 is half a character, and 9 drops its blank when alone."""

    eos_token_id = 0
    pieces = ["<end>", "a", "</", "an", "swer>", b"\xc3", b"\xa9", "x", "b a", " "]

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        pieces = [self.pieces[i] for i in ids]
        text = b"".join(p if isinstance(p, bytes) else p.encode() for p in pieces).decode(errors="replace")
        return text.strip() if len(ids) == 1 else text


@pytest.mark.parametrize(
    ("sampled", "stop", "expected"),
    [
        ([1, 0], (), True),
        ([7, 7], (), False),
        ([1, 2, 3, 4], ("</answer>",), True),
        ([1, 2, 3, 4], ("nothing", "</answer>"), True),
        ([2, 3], ("</answer>",), False),
        ([3, 4], ("</answer>",), False),
        ([7, 5, 6], ("xé",), True),
        ([7, 8], ("b",), True),
        ([7, 9], ("x ",), True),
        ([7], ("",), False),
    ],
)
def test_a_stop_string_is_found_when_its_last_character_comes(
    sampled: list[int], stop: tuple[str, ...], expected: bool
) -> None:
    assert StopRule(Letters(), {0}).applies(sampled, stop) is expected  # type: ignore[arg-type]


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_the_common_length_is_where_the_lists_part(left: list[int], right: list[int]) -> None:
    expected = next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), None)
    assert common_length(left, right) == (min(len(left), len(right)) if expected is None else expected)


def test_neighbouring_slots_are_served_in_one_call_unless_that_wastes_more_than_a_call() -> None:
    def blocks(slots: list[int], lengths: list[int], numbers_per_token: int = 64) -> list[tuple[int, int]]:
        rows = [
            Row(slot, length, token) for token, (slot, length) in enumerate(zip(slots, lengths, strict=True))
        ]
        served = serve(rows, numbers_per_token, CPU)
        for row, slot in zip(served.token_R.tolist(), served.slot_R.tolist(), strict=True):
            assert served.row_of_slot_S[slot] == row
        return [(block.slots.start, block.slots.stop) for block in served.blocks]

    assert blocks([0, 1, 2], [900, 800, 900]) == [(0, 3)]
    assert blocks([2, 0, 1], [50, 20, 50]) == [(0, 3)]
    assert blocks([0, 40], [900, 900]) == [(0, 1), (40, 41)]
    assert blocks([0, 2], [90, 90]) == [(0, 3)]
    assert blocks([0, 1], [5000, 10]) == [(0, 1), (1, 2)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("causal", [True, False])
def test_attention_without_the_cpu_kernel_gives_the_same(dtype: torch.dtype, causal: bool) -> None:
    query, key, value = torch.randn(3, 2, 4, 6, 8, generator=torch.Generator().manual_seed(1), dtype=dtype)
    bias = None if causal else torch.zeros(2, 1, 1, 6, dtype=dtype)
    for found, expected in zip(
        attend(query, key, value, 0.3, bias, causal),
        _attend_by_matmul(query, key, value, 0.3, bias, causal),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)
