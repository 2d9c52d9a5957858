"""The agent `endpoint`: programs that fail, hang, never ask, or are processes; and nothing is left of any."""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agentrl import Action, Conversation, Env, Observation, Outcome, Sampling, Task, Trajectory
from agentrl.chat import ChatFormat
from agentrl.config import SimulatorConfig
from agentrl.errors import AgentRLError
from agentrl.hooks import Hooks
from agentrl.hosting.pool import InProcessPool
from agentrl.simulator import Simulator
from agentrl.testing import ScriptedEngine, check_agent
from agentrl.types import Completion
from agentrl_endpoint import Endpoint, functions

needs = "install agentrl's extra 'endpoint', and openai, to try it"
pytest.importorskip("aiohttp", reason=needs)
pytest.importorskip("openai", reason=needs)

PROGRAMS = Path(__file__).with_name("endpoint_programs.py")
# A command that answers with what the model says, by nothing but the standard library.
PLAIN = """
import json, os, sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
def post(url, body):
    headers = {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}
    return json.load(opener.open(urllib.request.Request(url, json.dumps(body).encode(), headers)))
def ask(text):
    body = {"messages": [{"role": "user", "content": text}]}
    answer = post(os.environ["OPENAI_BASE_URL"] + "/chat/completions", body)
    return answer["choices"][0]["message"]["content"]
def step(action):
    return post(os.environ["AGENTRL_STEP_URL"], {"action": action})["observation"]
shown = sys.stdin.read()
"""


class Ticking(Env):
    """Is over after three steps."""

    def tasks(self, split: str) -> Sequence[Task]:
        return [Task(str(number), split) for number in range(4)]

    async def reset(self, task: Task, seed: int) -> Observation:
        self.steps = 0
        return Observation("begin")

    async def step(self, action: Action) -> Observation:
        self.steps += 1
        return Observation(f"after {action.text}", done=self.steps == 3)

    async def judge(self) -> Outcome:
        return Outcome(success=True)


def program(function: str) -> Callable[[], Endpoint]:
    config = Endpoint.Config(program=f"{PROGRAMS}:{function}")
    return lambda: Endpoint(config)


def command(tmp_path: Path, code: str) -> Callable[[], Endpoint]:
    script = tmp_path / "script.py"
    script.write_text(PLAIN + code)
    config = Endpoint.Config(command=(sys.executable, str(script)))
    return lambda: Endpoint(config)


def play(
    agent: Callable[[], Endpoint], engine: ScriptedEngine | None = None, tasks: int = 1, **limits: Any
) -> list[Trajectory]:
    """Play some tasks; nothing may be left on the loop, and no connection that could be used."""

    async def run() -> list[Trajectory]:
        pool = InProcessPool(Ticking, size=8)
        hooks = Hooks(installed=False)
        engine_ = engine or ScriptedEngine(lambda context: "tick")
        simulator = Simulator(pool, agent, engine_, SimulatorConfig(**limits), hooks, lambda warning: None)
        groups = await simulator.play(Ticking().tasks("train")[:tasks], 1, seed=3)
        await pool.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left
        return [trajectory for group in groups for trajectory in group.trajectories]

    return asyncio.run(run())


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "agentrl-program"]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").exists() and " Z " in Path(f"/proc/{pid}/stat").read_text()


# Functions


@pytest.mark.parametrize(
    ("function", "cause"),
    [
        ("crashing", "the program raised KeyError: 'no such thing' (line "),
        ("exiting", "the program raised SystemExit: no more of begin (line "),
        ("silent", "the program acted without asking the model; give its client the episode's base_url"),
        ("wordless", "the program gave None for an action; it has to be a text"),
        ("wrong_key", "the program raised AuthenticationError: "),
        ("wrong_path", "the program raised NotFoundError: "),
    ],
)
def test_a_program_that_fails_ends_the_trajectory_with_its_cause(function: str, cause: str) -> None:
    (trajectory,) = play(program(function))
    assert trajectory.stop == "error"
    assert trajectory.error is not None
    assert trajectory.error.startswith(f"agent.act at turn 0 raised ProgramFailed: {cause}")


def test_a_program_that_only_steps_is_found_out_at_the_end() -> None:
    (trajectory,) = play(program("stepping_silently"))
    assert trajectory.stop == "error"
    assert "agent.close at turn 3 raised ProgramFailed: the program acted without asking" in str(
        trajectory.error
    )


def test_a_program_that_waits_for_ever_is_cancelled_at_the_time_out() -> None:
    (trajectory,) = play(program("hanging"), act_timeout=0.3)
    assert trajectory.error == "agent.act at turn 0 took longer than 0.3 s"


def test_a_program_that_blocks_its_loop_is_left_behind_and_the_next_one_gets_another(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(functions, "GRACE", 0.1)
    (trajectory,) = play(program("blocking"), act_timeout=0.3)
    assert trajectory.error == "agent.act at turn 0 took longer than 0.3 s"
    assert "a program goes on after its episode" in caplog.text
    assert [each.error for each in play(program("dialogue"))] == [None]


def test_a_plain_function_ends_with_its_episode() -> None:
    assert [each.error for each in play(program("reply"), tasks=4)] == [None] * 4
    assert [each.stop for each in play(program("search"), max_turns=1)] == ["max_turns"]
    wait_for(lambda: not threads())


def test_a_program_is_cancelled_where_it_waits_when_its_episode_is_over() -> None:
    (trajectory,) = play(program("leaves_a_child"), max_turns=1)
    assert trajectory.error is None
    assert is_gone(int(trajectory.turns[0].action.text))


def test_a_run_that_is_cancelled_takes_programs_and_requests_with_it(tmp_path: Path) -> None:
    class Slow(ScriptedEngine):
        cancelled = 0

        async def generate(self, token_ids: Sequence[int], sampling: Sampling, session: str) -> Completion:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                type(self).cancelled += 1
                raise
            raise AssertionError("slept")

    async def run(make: Callable[[], Endpoint]) -> None:
        pool = InProcessPool(Ticking, size=8)
        engine = Slow([])
        simulator = Simulator(pool, make, engine, SimulatorConfig(), Hooks(installed=False), print)
        playing = asyncio.create_task(simulator.play(Ticking().tasks("train")[:2], 1, seed=3))
        await asyncio.sleep(1.0)
        playing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await playing
        await pool.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    for make in (program("dialogue"), program("reply"), command(tmp_path, "ask(shown)")):
        asyncio.run(run(make))
    assert Slow.cancelled >= 4
    wait_for(lambda: not threads())


def test_an_engine_that_fails_stops_the_run_as_with_any_agent() -> None:
    with pytest.raises(AgentRLError, match="the script of 0 texts is over"):
        play(program("dialogue"), ScriptedEngine([]))


def test_nothing_is_recorded_of_a_request_that_was_given_up() -> None:
    """The client hangs up while the model speaks, and asks again."""

    class Slow(ScriptedEngine):
        async def generate(self, token_ids: Sequence[int], sampling: Sampling, session: str) -> Completion:
            if not self.requests:
                self.requests.append(None)  # type: ignore[arg-type]
                await asyncio.sleep(3600)
            return await super().generate(token_ids, sampling, session)

    (trajectory,) = play(program("impatient"), Slow(["tick"]), max_turns=1)
    assert trajectory.error is None
    assert [len(segment.spans) for segment in trajectory.segments] == [1]
    assert ScriptedEngine([]).tokenizer.decode(trajectory.segments[0].token_ids).count("begin") == 1


# Commands


def test_a_command_reads_the_observation_and_writes_the_action(tmp_path: Path) -> None:
    (trajectory,) = play(command(tmp_path, "print(ask(shown))"))
    assert trajectory.error is None
    assert [turn.action.text for turn in trajectory.turns] == ["tick"] * 3
    assert len(trajectory.spans) == 3


def test_a_command_may_play_the_whole_episode(tmp_path: Path) -> None:
    played = play(command(tmp_path, "while True: shown = step(ask(shown) + ' ' + shown[:5])"), tasks=2)
    for trajectory in played:
        assert trajectory.error is None
        assert [turn.action.text for turn in trajectory.turns] == ["tick begin", "tick after", "tick after"]


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("sys.exit('gave up')", "the command ended with exit code 1: gave up"),
        ("os.kill(os.getpid(), 9)", "the command ended with signal 9: it wrote nothing to stderr"),
        ("print('tick')", "the program acted without asking the model; "),
        ("ask(shown); print('x' * 2_000_000)", "the command wrote more than 1000000 bytes"),
        (
            "post(os.environ['OPENAI_BASE_URL'] + '/chat/completions', [])",
            "the command ended with exit code 1: ",
        ),
    ],
)
def test_a_command_that_fails_ends_the_trajectory_with_its_cause(
    tmp_path: Path, code: str, cause: str
) -> None:
    (trajectory,) = play(command(tmp_path, code))
    assert trajectory.stop == "error"
    assert f"raised ProgramFailed: {cause}" in str(trajectory.error)


def test_what_a_command_has_started_ends_with_it(tmp_path: Path) -> None:
    child = "import subprocess; child = subprocess.Popen(['sleep', '3600']); ask(shown); "
    (trajectory,) = play(command(tmp_path, child + "print(child.pid)"), max_turns=1)
    assert trajectory.error is None
    wait_for(lambda: is_gone(int(trajectory.turns[0].action.text)))
    (trajectory,) = play(command(tmp_path, child + "step(str(child.pid))"), max_turns=1)
    assert trajectory.error is None
    wait_for(lambda: is_gone(int(trajectory.turns[0].action.text)))


def test_commands_keep_the_rules_of_agents(tmp_path: Path) -> None:
    check_agent(command(tmp_path, "print(ask(shown))"), observations=("What?", ""))


# The endpoint


def test_the_endpoint_is_there_while_episodes_are_and_only_for_who_has_a_key() -> None:
    async def run() -> tuple[int, int]:
        import aiohttp

        engine = ScriptedEngine(["one"])
        conversation = Conversation(engine, ChatFormat(engine.tokenizer), Sampling(), "episode")
        agent = program("dialogue")()
        await agent.act(Observation("x"), conversation)
        assert agent._play is not None
        server = agent._play._server
        assert server is not None
        assert server._runner is not None
        host, port = server._runner.addresses[0][:2]
        assert host == "127.0.0.1"
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://{host}:{port}/v1/models") as response:
                status = response.status
            await agent.close()
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get(f"http://{host}:{port}/v1/models")
        return status, len(conversation.segments)

    assert asyncio.run(run()) == (401, 1)
