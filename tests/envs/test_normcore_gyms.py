"""The gyms in the real browser: experts succeed, almost-right runs fail, episodes repeat to the byte."""

import asyncio
import os
import random
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import pytest

from agentrl import Action, Observation, Outcome, Task
from agentrl.errors import UsageError
from agentrl_browser import find_executable
from agentrl_normcore import Normcore
from agentrl_normcore.conditions import PROFILES
from agentrl_normcore.gym import LEVELS, gym_names, load_gym
from agentrl_normcore.looking import expert
from agentrl_normcore.workload import problem_of


def has_browser() -> bool:
    try:
        find_executable()
    except UsageError:
        return False
    return True


pytestmark = [
    pytest.mark.skipif(not has_browser(), reason="needs a browser: chromium-headless-shell"),
    pytest.mark.timeout(1200),
]
GYMS = ("calendar", "dropdown", "endurance", "forms", "mail")
LIMIT = 150
# Of the slow tests; each is an episode or two a level.
SEEDS = int(os.environ.get("AGENTRL_NORMCORE_SEEDS", "200"))
Act = Callable[[Observation], str]


@dataclass(frozen=True, slots=True)
class Episode:
    observations: tuple[Observation, ...]
    outcome: Outcome


def task_of(gym: str, level: int, profile: str, number: int) -> Task:
    data = {"gym": gym, "level": level, "profile": profile, "seed": f"train/0/{number}"}
    return Task(f"{gym}-{level}-{profile}-{number}", "train", data)


async def play(env: Normcore, task: Task, seed: int, act: Act) -> Episode:
    seen = [await env.reset(task, seed)]
    while not seen[-1].done and len(seen) < LIMIT:
        seen.append(await env.step(Action(act(seen[-1]))))
    return Episode(tuple(seen), await env.judge())


async def side_by_side(jobs: Iterable[Callable[[Normcore], Awaitable[None]]], envs: int) -> None:
    """Do all jobs in so many envs."""
    waiting = iter(jobs)

    async def work() -> None:
        env = Normcore()
        try:
            for job in waiting:
                await job(env)
        finally:
            await env.close()

    await asyncio.gather(*(work() for _ in range(envs)))


def play_all(runs: Iterable[tuple[Task, int, Act]], envs: int = 4) -> list[tuple[Task, Episode]]:
    """Play episodes side by side; return them in the order in which they ended."""
    ended: list[tuple[Task, Episode]] = []

    def job(task: Task, seed: int, act: Act) -> Callable[[Normcore], Awaitable[None]]:
        async def run(env: Normcore) -> None:
            ended.append((task, await play(env, task, seed, act)))

        return run

    asyncio.run(side_by_side([job(*each) for each in runs], envs))
    return ended


def experts(gym: str, profile: str, numbers: Iterable[int]) -> list[tuple[Task, int, Act]]:
    tasks = [task_of(gym, level, profile, number) for number in numbers for level in LEVELS]
    return [(task, number, Normcore().demonstrate(task)) for number, task in enumerate(tasks)]


def check_experts(gym: str, profile: str, numbers: range) -> None:
    for task, episode in play_all(experts(gym, profile, numbers)):
        assert episode.outcome.success, (task.id, episode.outcome, episode.observations[-1].text)


def check_almost_right(gym: str, numbers: range) -> None:
    runs, names = [], {}
    for number in numbers:
        for level in LEVELS:
            task = task_of(gym, level, "calm", number)
            for name, policy in load_gym(gym).almost(problem_of(task.data)).items():
                named = Task(f"{task.id}: {name}", "train", task.data)
                names[named.id] = name
                runs.append((named, number, expert(policy)))
    for task, episode in play_all(runs):
        assert episode.observations[-1].done, task.id
        assert not episode.outcome.success, (task.id, episode.outcome)
        assert episode.outcome.failed, task.id


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("gym", GYMS)
def test_the_expert_succeeds(gym: str, profile: str) -> None:
    check_experts(gym, profile, range(1))


@pytest.mark.parametrize("gym", GYMS)
def test_almost_right_is_wrong(gym: str) -> None:
    check_almost_right(gym, range(2))


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("gym", GYMS)
def test_the_expert_succeeds_over_many_seeds(gym: str, profile: str) -> None:
    check_experts(gym, profile, range(SEEDS))


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("gym", GYMS)
def test_almost_right_is_wrong_over_many_seeds(gym: str) -> None:
    check_almost_right(gym, range(SEEDS))


def test_all_gyms_that_are_shipped_are_tested() -> None:
    assert set(GYMS) <= set(gym_names())


# Determinism


def monkey(seed: int, actions: int = 12) -> Act:
    """Return someone who does something at random to something that is there."""
    chance = random.Random(seed)
    left = actions

    def act(observation: Observation) -> str:
        nonlocal left
        left -= 1
        elements = re.findall(r"\[(\w+)\] (\w+)", observation.text)
        if left < 0 or not elements:
            return "done()" if left < 0 else "noop(300)"
        bid, role = chance.choice(elements)
        options = re.findall(r"option '([^']+)'", observation.text)
        if role == "combobox" and options:
            return f"select_option('{bid}', '{chance.choice(options)}')"
        words = re.findall(r"\w+", observation.text.partition("RootWebArea")[0]) or ["x"]
        return f"fill('{bid}', '{chance.choice(words)}')" if role == "textbox" else f"click('{bid}')"

    return act


def script(task: Task) -> tuple[Episode, list[str]]:
    """Return what an expert does in a task, and how it goes."""
    said: list[str] = []
    act = Normcore().demonstrate(task)

    def note(observation: Observation) -> str:
        said.append(act(observation))
        return said[-1]

    [(_, episode)] = play_all([(task, 7, note)], envs=1)
    return episode, said


def replay(actions: list[str]) -> Act:
    left = iter(actions)
    return lambda _: next(left)


def check_repeats(task: Task, times: int) -> None:
    """The same actions make the same observations and verdict, alone and 8 at a time."""
    first, actions = script(task)
    for envs in (1, 8):
        for _, again in play_all([(task, 7, replay(actions)) for _ in range(times)], envs):
            assert again == first


def test_the_same_actions_make_the_same_episode_to_the_byte_alone_and_8_at_a_time() -> None:
    check_repeats(task_of("dropdown", 2, "hostile", 3), times=8)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("gym", GYMS)
def test_episodes_repeat_many_times_to_the_byte(gym: str) -> None:
    for level in LEVELS:
        check_repeats(task_of(gym, level, "hostile", 3), times=min(20, SEEDS))


# Chance


@pytest.mark.parametrize("gym", GYMS)
def test_a_monkey_does_not_succeed(gym: str) -> None:
    tasks = [task_of(gym, level, profile, 5) for level in (2, 3) for profile in ("calm", "hostile")]
    tasks = [task for task in tasks if problem_of(task.data).specification.ending == "done"]
    for task, episode in play_all([(task, 5, monkey(number)) for number, task in enumerate(tasks)]):
        assert episode.observations[-1].done
        assert not episode.outcome.success, task.id


def test_conditions_that_were_on_are_told() -> None:
    [(_, calm)] = play_all(experts("mail", "calm", range(1))[:1])
    assert calm.outcome.tags == ()
    assert calm.outcome.metrics == {"actions": 4, "action_errors": 0, "missing": 0, "forbidden": 0}
    stormy = [episode.outcome.tags for _, episode in play_all(experts("mail", "hostile", range(2)))]
    assert any(stormy)


def test_nothing_done_is_missing_everything() -> None:
    task = task_of("forms", 1, "calm", 0)
    [(_, episode)] = play_all([(task, 0, lambda _: "done()")])
    assert episode.outcome.failed[0].startswith("missing: a new row in addresses")
    assert episode.outcome.metrics["missing"] == 1


# States


async def keys_after(task: Task, actions: list[str]) -> list[str | None]:
    env = Normcore()
    try:
        seen = [await env.reset(task, 0)]
        seen += [await env.step(Action(text)) for text in actions]
        return [each.state_key for each in seen]
    finally:
        await env.close()


def test_what_the_page_only_remembers_is_part_of_the_state() -> None:
    number = next(
        number
        for number in range(100)
        if problem_of(task_of("forms", 2, "calm", number).data).shown["resets"] == 1
    )
    task = task_of("forms", 2, "calm", number)
    there_and_back = ["select_option('6', 'Germany')", "select_option('6', 'none')"]
    keys = asyncio.run(keys_after(task, there_and_back))
    waited = asyncio.run(keys_after(task, ["focus('6')", "noop(500)"]))
    assert keys[-1] != waited[-1]
    assert asyncio.run(keys_after(task, there_and_back)) == keys
