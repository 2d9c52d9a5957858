"""A plugin that is broken, odd or unwelcome harms only the run that names it, and is named itself.

Every kind of trouble at once, in one environment, as the command line meets it; single messages are looked
at in `test_plugins` and `test_plugins_hooks`.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Install = Callable[..., Path]
ENVS, HOOKS = "agentrl.envs", "agentrl.hooks"
NOISE = "print('hello from the plugin'); import sys; print('and on the other side', file=sys.stderr)\n"
# What never ends stands for what is slow: whoever imports it is found out by the test's time limit.
ENDLESS = "import threading\nthreading.Event().wait()\n"


@pytest.fixture
def troubles(install: Install, toys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the toys, and one distribution for every kind of trouble."""
    fine = "from toy_plugins import ToyEnv\n"
    install("twin-one", {ENVS: {"twin": "twin_one:ToyEnv"}}, modules={"twin_one": ENDLESS + fine})
    install("twin-two", {ENVS: {"twin": "twin_two:ToyEnv"}}, modules={"twin_two": ENDLESS + fine})
    install(
        "broken", {ENVS: {"broken": "broken_env:ToyEnv"}}, modules={"broken_env": "import not_there_at_all"}
    )
    install(
        "future",
        {ENVS: {"future": "future_env:ToyEnv"}},
        modules={"future_env": ENDLESS},
        requires=["agentrl-platform>=99"],
    )
    install("unwanted", {ENVS: {"unwanted": "unwanted_env:ToyEnv"}}, modules={"unwanted_env": ENDLESS})
    install("noisy", {ENVS: {"noisy": "noisy_env:ToyEnv"}}, modules={"noisy_env": NOISE + fine})
    install("slow", {ENVS: {"slow": "slow_env:ToyEnv"}}, modules={"slow_env": ENDLESS + fine})
    monkeypatch.setenv("AGENTRL_DISABLE_PLUGINS", "unwanted")


def agentrl(*arguments: str, typed: str = "") -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-m", "agentrl", *arguments]
    return subprocess.run(line, input=typed, capture_output=True, text=True, check=False)


@pytest.mark.usefixtures("troubles")
def test_all_are_listed_with_what_is_known_and_none_is_imported() -> None:
    done = agentrl("plugins")
    assert done.returncode == 0
    rows = {
        tuple(line.split()[1:3]): line.split()[4:] for line in done.stdout.splitlines() if " env " in line
    }
    assert rows["twin", "twin-one"] == rows["twin", "twin-two"] == ["provided", "twice"]
    assert rows["future", "future"] == ["needs", "agentrl-platform", ">=99"]
    assert rows["unwanted", "unwanted"] == ["disabled"]
    assert rows["toy", "toy-plugins"] == rows["broken", "broken"] == rows["slow", "slow"] == []
    assert "hello" not in done.stdout + done.stderr


@pytest.mark.usefixtures("troubles")
@pytest.mark.parametrize(
    ("name", "message", "owners"),
    [
        ("twin", "the env 'twin' is provided by twin-", ("twin-one 1.0", "twin-two 1.0")),
        (
            "broken",
            "the env 'broken' of broken 1.0 could not be imported: No module named 'not_there_at_all'",
            (),
        ),
        ("future", "the env 'future' of future 1.0 needs agentrl-platform >=99, but this is 0", ()),
        (
            "unwanted",
            "the env 'unwanted' is disabled by AGENTRL_DISABLE_PLUGINS; take it out of that variable",
            (),
        ),
    ],
)
def test_who_names_one_is_told_in_a_sentence(name: str, message: str, owners: tuple[str, ...]) -> None:
    for command in (["run", "--env", name], ["eval", "--env", name], ["env", "play", name]):
        done = agentrl(*command)
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith(f"error: {message}")
        assert all(owner in done.stderr for owner in owners)
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.usefixtures("troubles")
def test_who_names_another_is_not_concerned() -> None:
    played = agentrl("env", "play", "toy", typed="open\n")
    assert (played.returncode, played.stderr) == (0, "")
    assert "\nsuccess\n" in played.stdout
    assert "hello" not in played.stdout
    assert agentrl("check", "toy", "--kind", "reward").returncode == 0


@pytest.mark.usefixtures("troubles")
def test_one_that_prints_when_it_is_imported_can_be_used() -> None:
    played = agentrl("env", "play", "noisy", typed="open\n")
    assert played.returncode == 0, played.stderr
    assert "hello from the plugin" in played.stdout
    assert "\nsuccess\n" in played.stdout


@pytest.mark.usefixtures("troubles")
def test_one_that_prints_does_not_garble_what_its_worker_process_says() -> None:
    code = """
import asyncio
from agentrl.hosting.pool import WorkerPool

async def play():
    pool = WorkerPool("noisy", {}, 1)
    async with pool.lease() as env:
        return await env.reset(env_task, 0)

from agentrl import Task
env_task = Task("train-0")
print(asyncio.run(play()).text)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["go"], done.stderr


@pytest.mark.usefixtures("toys")
def test_a_hook_plugin_with_trouble_stops_runs_but_no_other_command(install: Install) -> None:
    install("grumpy", {HOOKS: {"grumpy": "grumpy_hook"}}, modules={"grumpy_hook": "1 / 0"})
    done = agentrl("run", "--env", "toy", "--trainer", "toy")
    assert "the hook 'grumpy' of grumpy 1.0 could not be imported: ZeroDivisionError" in done.stderr
    assert agentrl("plugins", "toy").returncode == 0
    helped = agentrl("--help")
    assert helped.returncode == 0
    assert "warning: the hook 'grumpy' of grumpy 1.0 could not be imported" in helped.stderr
