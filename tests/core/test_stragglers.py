"""Cutting off what is slow: when it is known, and what must not be touched then."""

import asyncio

import pytest

from agentrl.stragglers import CutOff, Stragglers


async def episode(clocks: Stragglers, seconds: float, ending: float = 0.0, *, failed: bool = False) -> str:
    try:
        async with clocks.watching(lambda: failed):
            try:
                await asyncio.sleep(seconds)
            finally:
                await asyncio.sleep(ending)
    except CutOff as cause:
        return str(cause)
    return "over"


def play(multiple: float | None, *episodes: tuple[float, ...]) -> list[str]:
    async def all_episodes() -> list[str]:
        clocks = Stragglers(len(episodes), multiple)
        return await asyncio.gather(*(episode(clocks, *each) for each in episodes))

    return asyncio.run(all_episodes())


def test_who_takes_a_multiple_of_the_median_is_cut_off_and_nobody_without_one() -> None:
    said = play(5, (0.05,), (0.05,), (30.0,))
    assert said[:2] == ["over", "over"]
    assert "5 times the median" in said[2]
    assert play(None, (0.01,), (0.01,), (0.2,)) == ["over"] * 3


def test_nobody_is_cut_off_before_half_are_over() -> None:
    assert play(2, (0.01,), (0.3,), (0.3,), (0.3,)) == ["over"] * 4


def test_who_fails_at_once_is_no_measure_of_the_others() -> None:
    async def all_episodes() -> list[str]:
        clocks = Stragglers(6, 4)
        failing = [episode(clocks, 0.0, failed=True) for _ in range(4)]
        return await asyncio.gather(*failing, episode(clocks, 0.1), episode(clocks, 0.2))

    assert asyncio.run(all_episodes()) == ["over"] * 6


def test_one_that_is_being_cut_off_takes_its_time_while_others_end() -> None:
    # The third is cut off and ends slowly; meanwhile the fourth, which began with it, is over.
    said = play(6, (0.05,), (0.05,), (30.0, 0.5), (0.2,), (30.0,))
    assert [each == "over" for each in said] == [True, True, False, True, False]


def test_what_else_goes_wrong_is_raised_as_it_is() -> None:
    async def fail() -> None:
        async with Stragglers(1, 2).watching():
            raise TimeoutError("of the episode's own")

    with pytest.raises(TimeoutError, match="of the episode's own"):
        asyncio.run(fail())
