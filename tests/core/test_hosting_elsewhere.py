"""Envs in another virtual environment play there as they would here, whichever Python it has."""

import asyncio
import shutil
from pathlib import Path

import pytest

from agentrl import Action, Env, Observation, Outcome, Task, UsageError
from agentrl.hosting import EnvRaised, Nonsense
from agentrl.hosting.elsewhere import RemotePool
from agentrl.testing.env_player import EnvUnderTest
from elsewhere import TASK, Elsewhere, Judged, Small, play, pythons, step, step_once
from processes import descendants, wait_for


@pytest.fixture(autouse=True)
def folder(elsewhere: Path) -> Path:
    """Have all envs set up."""
    return elsewhere


@pytest.mark.parametrize("python", pythons(), indirect=True)
def test_an_episode_plays_in_another_python(folder: Path) -> None:
    async def body(pool: RemotePool) -> tuple[Observation, Observation, Outcome]:
        async with pool.lease() as env:
            return await env.reset(TASK, 5), await env.step(Action("fine")), await env.judge()

    first, last, outcome = play(body, folder=str(folder))
    assert first == Observation("hello world 5", state_key="start")
    assert last == Observation("fine", done=True, action_key="be fine")
    assert outcome == Outcome(True, "1", (), ("a",), (), {"length": 2.0}, ("odd",))
    assert list(folder.glob("closed-*")), "the world is closed when its episode is over"


def test_every_episode_has_a_process_of_its_own_forked_from_one_that_has_preloaded() -> None:
    async def body(pool: RemotePool) -> list[Observation]:
        return [await step(pool, "who"), await step(pool, "who")]

    episodes = [answer.text.split() for answer in play(body)]
    assert episodes[0][0] != episodes[1][0]
    assert len({pid for _, *parents in episodes for pid in parents}) == 1


def test_the_world_sees_nothing_of_our_python_and_its_randomness_comes_from_the_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", "somewhere")

    async def body(pool: RemotePool) -> list[str]:
        return [(await step(pool, "python")).text for _ in range(2)]

    first, second = play(body)
    assert first == second
    assert first.startswith("[None, False, 0.")


def test_sixteen_episodes_of_one_task_side_by_side_are_each_its_own() -> None:
    async def body(pool: RemotePool) -> list[str]:
        answers = await asyncio.gather(*(step(pool, "who", f"{n}") for n in range(16)))
        return [answer.text.split()[0] for answer in answers]

    assert len(set(play(body, size=16))) == 16


def test_a_judge_apart_is_told_what_the_world_has_put_on_record() -> None:
    async def body(pool: RemotePool) -> tuple[Observation, Outcome]:
        async with pool.lease() as env:
            await env.reset(TASK, 5)
            await env.step(Action("claim"))
            await env.step(Action("fine"))
            return await env.step(Action("claim")), await env.judge()

    last, outcome = play(body, Judged)
    assert last == Observation("noted")
    records = [{"claimed": 1}, {"claimed": 3}]
    assert outcome == Outcome(True, repr(["greet", 5, records, ["folder", "preload"]]))


def test_long_and_odd_texts_arrive_whole() -> None:
    assert step_once("long").text == "\U0001f40d\ud800" * 200_000


def test_a_world_that_prints_and_reads_does_not_disturb_the_protocol() -> None:
    assert step_once("print").text == "''"


def test_a_forked_copy_of_the_world_does_not_answer_in_its_place() -> None:
    assert step_once("fork").text == "I am the right one"


def test_an_exception_is_told_with_its_place_and_the_episode_plays_on() -> None:
    async def body(pool: RemotePool) -> Observation:
        async with pool.lease() as env:
            await env.reset(TASK, 1)
            with pytest.raises(EnvRaised, match=r"KeyError: 'the missing key' \(world.py line \d+, in do_r"):
                await env.step(Action("raise"))
            return await env.step(Action("fine"))

    assert play(body).text == "fine"


@pytest.mark.parametrize(
    ("action", "cause"),
    [
        ("none", "step of env .* returned None, not an object with text"),
        ("number", r"returned a int \(7\) as Observation.text, which must be a str"),
        ("unsafe", "returned what is not JSON-safe"),
    ],
)
def test_nonsense_is_told_by_operation_and_value(action: str, cause: str) -> None:
    with pytest.raises(Nonsense, match=cause):
        step_once(action)


def test_a_failed_reset_is_told_and_the_next_is_fine() -> None:
    async def body(pool: RemotePool) -> Observation:
        with pytest.raises(EnvRaised, match="no such world"):
            async with pool.lease() as env:
                await env.reset(Task("bad", data={"bad": True}), 1)
        return await step(pool, "fine")

    assert play(body).text == "fine"


def test_an_environment_that_is_not_set_up_is_refused_with_the_command(folder: Path) -> None:
    shutil.rmtree(folder / "cache")
    with pytest.raises(UsageError, match="which is not set up; set it up with: agentrl env setup remote"):
        RemotePool(Elsewhere(), 1, name="remote")


def test_an_env_plays_without_a_pool_too() -> None:
    async def run() -> tuple[str, str, Outcome]:
        env = Elsewhere(Elsewhere.Config())
        try:
            texts = []
            for seed in (1, 2):
                texts.append((await env.reset(TASK, seed)).text)
            await env.step(Action("who"))
            return texts[0], texts[1], await env.judge()
        finally:
            await env.close()
            await env.close()

    first, second, outcome = asyncio.run(run())
    assert (first, second, outcome.answer) == ("hello world 1", "hello world 2", "1")
    wait_for(lambda: not descendants(), 5)


def test_envs_play_beside_another_in_its_workers_which_end_with_it() -> None:
    async def run() -> list[list[str]]:
        host, one, other = (Elsewhere(Elsewhere.Config()) for _ in range(3))
        try:
            families = []
            for env in (one, other):
                env.play_beside(host)
                await env.reset(TASK, 1)
            for env in (one, other):
                families.append((await env.step(Action("who"))).text.split())
            await one.close()
            families.append((await other.step(Action("who"))).text.split())
            await host.close()
            wait_for(lambda: not descendants(), 5)
            return families
        finally:
            for env in (other, one, host):
                await env.close()

    one, other, again = asyncio.run(run())
    assert one[0] != other[0]
    assert one[1:] == other[1:]
    assert again == other


def test_an_env_plays_beside_none_but_one_like_it() -> None:
    env = Elsewhere(Elsewhere.Config())
    for host in (env, Elsewhere(Elsewhere.Config(folder="other")), Small(Small.Config())):
        with pytest.raises(
            UsageError, match="Elsewhere can play beside another env of its class and options"
        ):
            env.play_beside(host)


def test_the_kit_starts_workers_once_for_all_envs_but_those_that_are_to_be_apart() -> None:
    async def zygote_of(env: Env) -> str:
        await env.reset(TASK, 1)
        return (await env.step(Action("who"))).text.split()[1]

    async def run() -> list[str]:
        subject = EnvUnderTest(lambda: Elsewhere(Elsewhere.Config()), ("train",), count=1, seconds=30)
        found = []
        for apart in (False, False, True):
            async with subject.env(apart) as env:
                found.append(await zygote_of(env))
        assert descendants(), "workers that are shared are kept"
        await subject.close()
        return found

    first, second, apart = asyncio.run(run())
    assert first == second != apart
    wait_for(lambda: not descendants(), 5)
