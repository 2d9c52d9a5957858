"""The shipped gyms in the real browser: the rules of gyms, over many seeds; chance, conditions, states."""

import asyncio
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib.metadata import entry_points
from typing import Any

import pytest

from agentrl import Action, Observation, Task
from agentrl.config import SimulatorConfig
from agentrl.hooks import Hooks
from agentrl.hosting.pool import InProcessPool
from agentrl.simulator import Simulator
from agentrl.testing import ByteTokenizer, ScriptedEngine
from agentrl.types import Trajectory
from agentrl_browser import parse
from agentrl_chat import Chat
from agentrl_normcore import Normcore
from agentrl_normcore.conditions import PROFILES
from agentrl_normcore.gym import GROUP, LEVELS
from agentrl_normcore.gyms.dropdown import Dropdown
from agentrl_normcore.playing import Episode, Run, expert_run, play_all, replay
from agentrl_normcore.testing import (
    GymUnderTest,
    check_gym,
    sees_what_is_almost_right,
    solves_what_it_poses,
)
from agentrl_normcore.workload import problem_of

pytestmark = [pytest.mark.usefixtures("browser"), pytest.mark.timeout(1200)]
GYMS = ("calendar", "dropdown", "endurance", "forms", "mail")
# Of the slow tests; each is an episode or two a level.
SEEDS = int(os.environ.get("AGENTRL_NORMCORE_SEEDS", "200"))


def task_of(gym: str, level: int, profile: str, number: int) -> Task:
    data = {"gym": gym, "level": level, "profile": profile, "seed": f"train/0/{number}"}
    return Task(f"{gym}-{level}-{profile}-{number}", "train", data)


def played(*runs: Run, envs: int = 4) -> list[Episode]:
    return asyncio.run(play_all(runs, envs))


# The rules of gyms


def test_all_gyms_that_are_shipped_are_tested() -> None:
    assert set(GYMS) == {each.name for each in entry_points(group=GROUP) if "agentrl_normcore" in each.value}


@pytest.mark.parametrize("gym", GYMS)
def test_a_gym_keeps_the_rules_of_gyms(gym: str) -> None:
    check_gym(gym, tasks=1)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("gym", GYMS)
def test_the_expert_succeeds_over_many_seeds(gym: str, profile: str) -> None:
    asyncio.run(solves_what_it_poses(GymUnderTest(gym, SEEDS, profiles=(profile,))))


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("gym", GYMS)
def test_almost_right_is_wrong_over_many_seeds(gym: str) -> None:
    asyncio.run(sees_what_is_almost_right(GymUnderTest(gym, SEEDS)))


def check_repeats(task: Task, times: int) -> None:
    """The same actions make the same observations and verdict, alone and 8 at a time."""
    [first] = played(expert_run(task, seed=7))
    for envs in (1, 8):
        for again in played(*(replay(first) for _ in range(times)), envs=envs):
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


def monkey(seed: int, actions: int = 12) -> Callable[[Observation], str]:
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


@pytest.mark.parametrize("gym", GYMS)
def test_a_monkey_does_not_succeed(gym: str) -> None:
    tasks = [task_of(gym, level, profile, 5) for level in (2, 3) for profile in ("calm", "hostile")]
    tasks = [task for task in tasks if problem_of(task.data).specification.ending == "done"]
    for episode in played(*(Run(task, monkey(number), "chance", 5) for number, task in enumerate(tasks))):
        assert episode.observations[-1].done
        assert not episode.outcome.success, str(episode)


def test_conditions_that_were_on_are_told() -> None:
    [calm] = played(expert_run(task_of("mail", 1, "calm", 0)))
    assert calm.outcome.tags == ()
    assert calm.outcome.metrics == {"actions": 4, "action_errors": 0, "missing": 0, "forbidden": 0}
    tasks = [task_of("mail", level, "hostile", number) for level in LEVELS for number in range(2)]
    assert any(episode.outcome.tags for episode in played(*map(expert_run, tasks)))


def test_what_is_called_missing_is_the_label_of_no_option() -> None:
    posed = [Dropdown().pose(random.Random(seed), level) for seed in range(3000) for level in (2, 3)]
    missing = [problem for problem in posed if problem.facts["case"] == "missing"]
    assert any(problem.facts["manner"] == "twins" for problem in missing)
    for problem in missing:
        labels = [label for _, label in problem.shown["lists"][-1]["options"]]
        assert problem.facts["wanted"]["Room"] not in labels


def test_nothing_done_is_missing_everything() -> None:
    [episode] = played(Run(task_of("forms", 1, "calm", 0), lambda _: "done()"))
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


# Tools


class Tooled(ByteTokenizer):
    """Has a chat template that names tools."""

    def apply_chat_template(self, conversation: list[dict[str, Any]], **options: Any) -> Any:
        names = [tool["function"]["name"] for tool in options.pop("tools", ())]
        return " ".join(names) + super().apply_chat_template(conversation, **options)


def calling(act: Callable[[Observation], str]) -> Callable[[str], str]:
    """Return a model that does by tool calls what `act` does; it sees the whole context."""

    def say(context: str) -> str:
        seen = re.split(r"<\|(?:user|tool)\|>\n", context)[-1].partition("<|end|>")[0]
        call = parse(act(Observation(seen)))
        return f"Now.<tool_call>{json.dumps({'name': call.name, 'arguments': call.arguments})}</tool_call>"

    return say


def test_a_model_that_is_shown_the_actions_as_tools_can_call_them() -> None:
    task = task_of("forms", 1, "calm", 0)
    act = Normcore().demonstrate(task)
    engine = ScriptedEngine(calling(act), Tooled())
    pool = InProcessPool(Normcore, 1)
    agent = partial(Chat, Chat.Config(tools=True))
    simulator = Simulator(
        pool, agent, engine, SimulatorConfig(), Hooks(installed=False), pytest.fail, Normcore.tools
    )

    async def play() -> Trajectory:
        [group] = await simulator.play([task], 1, seed=0)
        await pool.close()
        return group.trajectories[0]

    played = asyncio.run(play())
    assert played.outcome is not None
    assert played.outcome.success, str(played.turns[-1])
    text = engine.tokenizer.decode(played.segments[0].token_ids, skip_special_tokens=False)
    assert text.startswith("click dblclick hover fill")
    assert "<|tool|>" in text
    assert text.count("dblclick") == 1


def played_by_hand(gym: str, *, profile: str, decided: Callable[[str], str]) -> str:
    """Return what a person is shown who does at every turn what is `decided` after the expert's advice."""
    options = [f"env.gyms=[{gym}]", f"env.held_out_profiles=[{profile}]"]
    sets = [part for option in options for part in ("--set", option)]
    command = [sys.executable, "-m", "agentrl", "env", "play", "normcore", "--split", "dev", "--task", "2"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, *sets], bufsize=1, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        shown = []
        with suppress(BrokenPipeError):  # the episode is over
            process.stdin.write("?\n")
            for line in process.stdout:
                shown.append(line)
                _, says, advice = line.partition("the expert says: ")
                if says:
                    process.stdin.write(f"{decided(advice.strip())}\n?\n")
        shown += process.stdout.readlines()
    assert process.returncode == 0
    return "".join(shown)


@pytest.mark.parametrize(("gym", "profile"), [("mail", "hostile"), ("endurance", "calm")])
def test_a_person_plays_in_a_terminal_and_is_judged_by_the_same_verifier(gym: str, profile: str) -> None:
    shown = played_by_hand(gym, profile=profile, decided=lambda advice: advice)
    assert "Goal: " in shown
    assert "\nsuccess\n" in shown
    assert "what counts as success" in shown
    idle = played_by_hand(gym, profile=profile, decided=lambda advice: "done()")
    assert "\nfailure\n" in idle
    assert "missing: " in idle
