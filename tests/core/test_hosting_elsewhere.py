"""Envs in another virtual environment: real processes, real signals, and the oldest Python that will do."""

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, TypeVar

import pytest

from agentrl import (
    Action,
    Agent,
    Conversation,
    Env,
    Environment,
    Observation,
    Outcome,
    PluginConfig,
    RemoteEnv,
    Task,
    Trajectory,
    UsageError,
)
from agentrl.config import SimulatorConfig
from agentrl.hooks import Hooks
from agentrl.hosting import EnvRaised, Nonsense, WorkerDied
from agentrl.hosting.elsewhere import RemotePool, site_of
from agentrl.simulator import Simulator
from agentrl.testing.engines import ScriptedEngine
from agentrl.testing.env_player import EnvUnderTest

T = TypeVar("T")

WORLD = """
import os, random, subprocess, sys, time
from pathlib import Path

LOADED = []


def preload(config):
    LOADED.append(os.getpid())
    if config["preload"]:
        exec(config["preload"])


def reset(task, seed, config):
    global folder, steps
    folder, steps = Path(config["folder"]), 0
    if task["data"].get("bad"):
        raise ValueError("no such world")
    return {"text": "hello %s %d" % (task["data"]["name"], seed), "state_key": "start"}


def step(action):
    global steps
    steps += 1
    return globals()["do_" + action["text"]]()


def judge():
    return {"success": True, "answer": str(steps), "passed": ["a"], "metrics": {"length": 2}, "tags": ["odd"]}


def close():
    (folder / ("closed-%d" % os.getpid())).touch()


def do_claim():
    return {"text": "noted", "record": {"claimed": steps}}


def do_draw():
    time.sleep(0.03)
    return {"text": str(random.random()), "done": steps == 3}


def do_fine():
    return {"text": "fine", "done": True, "action_key": "be fine"}


def do_who():
    return "%s %s %s" % (os.getpid(), LOADED[0], os.getppid())


def do_python():
    return repr([os.environ.get("PYTHONPATH"), "agentrl" in sys.modules, random.random()])


def do_print():
    print("printed")
    os.write(1, b"below Python")
    subprocess.run(["echo", "by a child"], check=True)
    return repr(sys.stdin.read())


def do_long():
    return "\\U0001f40d\\ud800" * 200000


def do_raise():
    raise KeyError("the missing key")


def do_none():
    return None


def do_number():
    return {"text": 7}


def do_unsafe():
    return {"text": "x", "state_key": {1, 2}}


def do_exit():
    print("something is wrong, so I leave")
    sys.stdout.flush()
    os._exit(3)


def do_system_exit():
    sys.exit(5)


def do_crash():
    os.abort()


def do_garbage():
    for file in range(3, 30):
        try:
            os.write(file, b"\\xff" * 64)
        except OSError:
            pass
    time.sleep(600)


def do_fork():
    if os.fork() == 0:
        return "I am the wrong one"
    time.sleep(0.3)
    return "I am the right one"


def do_eat():
    return str(len(bytearray(1 << 29)))


def do_block():
    (folder / "blocking").touch()
    time.sleep(600)


def do_family():
    child = subprocess.Popen(["sleep", "600"])
    stranger = subprocess.Popen(["sleep", "600"], start_new_session=True)
    daemon = subprocess.Popen(
        [sys.executable, "-c", "import os, time; os.fork() and os._exit(0); os.setsid(); time.sleep(600)"]
    )
    daemon.wait()
    (folder / "kin").write_text("%d %d" % (child.pid, stranger.pid))
    (folder / "kin").rename(folder / "family")
    time.sleep(600)
"""
JUDGE = """
import os
TRUTH = []


def preload(config):
    TRUTH.append(os.getpid())


def judge(task, seed, records, config):
    return {"success": os.getppid() == TRUTH[0], "answer": repr([task["id"], seed, records, sorted(config)])}
"""
TASK = Task("greet", data={"name": "world"})


class Elsewhere(RemoteEnv):
    """Does what the action says, elsewhere."""

    class Config(PluginConfig):
        """Options."""

        folder: str = ""
        preload: str = ""

    environment: ClassVar[Environment] = Environment(worker="world.py")

    def tasks(self, split: str) -> Sequence[Task]:
        return [TASK]


class Small(Elsewhere):
    environment: ClassVar[Environment] = Environment(worker="world.py", memory_mb=512)


class Judged(Elsewhere):
    environment: ClassVar[Environment] = Environment(worker="world.py", judge="justice.py")


class Short(Elsewhere):
    environment: ClassVar[Environment] = Environment(worker="world.py", episode_seconds=0.5)


def pythons() -> list[str]:
    """Return the oldest and the newest Python there is here, and this one."""
    found = [path for minor in (9, 13) if (path := _python(f"python3.{minor}"))]
    return list(dict.fromkeys([*found, sys.executable]))


def _python(name: str) -> str | None:
    folders = sorted(Path("~/.pyenv/versions").expanduser().glob(f"{name.removeprefix('python')}*"))
    path = str(folders[-1] / "bin" / "python") if folders else shutil.which(name)
    return path if path and subprocess.run([path, "--version"], check=False).returncode == 0 else None


@pytest.fixture(params=pythons()[:1])
def python(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, python: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pretend that the environments of the envs above are set up with another Python."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "world.py").write_text(WORLD)
    (tmp_path / "justice.py").write_text(JUDGE)
    monkeypatch.setattr("agentrl.hosting.elsewhere.site._folder_of", lambda env: tmp_path)
    site = site_of(Elsewhere)
    for needed in (site.python.parent, site.files):
        needed.mkdir(parents=True)
    site.python.symlink_to(python)
    (site.folder / "done.json").write_text(json.dumps(site.titles))
    return tmp_path


def play(
    body: Callable[[RemotePool], Awaitable[T]],
    env: type[Elsewhere] = Elsewhere,
    size: int = 1,
    **options: str,
) -> T:
    """Play in a pool and see to it that nothing is left behind."""

    async def run() -> T:
        pool = RemotePool(env(env.Config(**options)), size)
        try:
            return await body(pool)
        finally:
            await pool.close()

    before = descendants()
    try:
        return asyncio.run(asyncio.wait_for(run(), 120))
    finally:
        wait_for(lambda: descendants() <= before, 5)


async def step(pool: RemotePool, text: str, name: str = "world") -> Observation:
    async with pool.lease() as env:
        await env.reset(Task("greet", data={"name": name}), 1)
        return await env.step(Action(text))


def step_once(text: str, env: type[Elsewhere] = Elsewhere, **options: str) -> Observation:
    return play(lambda pool: step(pool, text), env, **options)


def descendants(pid: int | str = "self") -> set[int]:
    """Return the running processes that a process has started, and theirs."""
    found = set()
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (thread / "children").read_text().split()):
                found |= {child, *descendants(child)} if is_running(child) else set()
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def is_running(pid: int | None) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


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


# Makes the second episode fail as where no process can be made for want of memory.
NO_MORE = """
def fork(plain=os.fork, forks=[]):
    forks.append(1)
    if len(forks) == 2:
        raise OSError(12, "out of memory")
    return plain()
os.fork = fork
"""


def test_a_process_that_cannot_be_made_costs_its_own_episode_only(folder: Path) -> None:
    async def body(pool: RemotePool) -> list[str]:
        async with pool.lease() as env:
            await env.reset(TASK, 1)
            with pytest.raises(WorkerDied, match="no process could be made"):
                await step(pool, "fine")
            return [(await env.step(Action("fine"))).text, (await step(pool, "fine")).text]

    assert play(body, size=2, folder=str(folder), preload=NO_MORE) == ["fine", "fine"]


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


@pytest.mark.parametrize(
    ("action", "cause"),
    [
        ("exit", "(?s)operation step: its process ended with exit code 3.*something is wrong, so I leave"),
        ("system_exit", "ended with exit code 5"),
        ("crash", "was killed by SIGABRT"),
        ("garbage", "broke the protocol"),
    ],
)
def test_an_episode_that_dies_says_how_and_harms_no_other(action: str, cause: str) -> None:
    async def body(pool: RemotePool) -> Observation:
        with pytest.raises(WorkerDied, match=cause):
            await step(pool, action)
        assert pool.zygote
        pid = pool.zygote.pid
        answer = await step(pool, "fine")
        assert pool.zygote.pid == pid
        return answer

    assert play(body).text == "fine"


def test_memory_is_limited() -> None:
    with pytest.raises(EnvRaised, match="MemoryError"):
        step_once("eat", Small)
    assert step_once("eat").text == str(1 << 29)


def test_an_episode_that_lasts_too_long_is_killed() -> None:
    with pytest.raises(WorkerDied, match="took longer than its environment's episode_seconds"):
        step_once("block", Short)


@pytest.mark.parametrize("how", ["time-out", "cancel"])
def test_giving_up_kills_the_episode_with_all_it_has_started(how: str, folder: Path) -> None:
    async def body(pool: RemotePool) -> set[int]:
        playing = asyncio.create_task(step(pool, "family"))
        await asyncio.to_thread(wait_for, (folder / "family").exists)
        assert pool.zygote
        zygote = pool.zygote.pid or 0
        assert len(descendants(zygote)) >= 3
        if how == "cancel":
            playing.cancel()
        with pytest.raises((asyncio.CancelledError, TimeoutError)):
            await asyncio.wait_for(playing, 0.1)
        await asyncio.to_thread(wait_for, lambda: not descendants(zygote), 5)
        return {int(pid) for pid in (folder / "family").read_text().split()}

    for pid in play(body, folder=str(folder)):
        assert not is_running(pid)


def test_a_failed_reset_is_told_and_the_next_is_fine() -> None:
    async def body(pool: RemotePool) -> Observation:
        with pytest.raises(EnvRaised, match="no such world"):
            async with pool.lease() as env:
                await env.reset(Task("bad", data={"bad": True}), 1)
        return await step(pool, "fine")

    assert play(body).text == "fine"


def test_sixteen_episodes_of_one_task_side_by_side_are_each_its_own() -> None:
    async def body(pool: RemotePool) -> list[str]:
        answers = await asyncio.gather(*(step(pool, "who", f"{n}") for n in range(16)))
        return [answer.text.split()[0] for answer in answers]

    assert len(set(play(body, size=16))) == 16


def test_two_hundred_episodes_leave_no_process_and_no_file_behind() -> None:
    async def body(pool: RemotePool) -> None:
        await step(pool, "who")
        assert pool.zygote
        zygote = pool.zygote.pid or 0
        before = files(), files(zygote), memory(zygote)
        for _ in range(25):
            await asyncio.gather(*(step(pool, "who") for _ in range(8)))
        await asyncio.to_thread(wait_for, lambda: not descendants(zygote), 5)
        assert files() <= before[0]
        assert files(zygote) == before[1]
        assert memory(zygote) - before[2] < 2_000

    play(body, size=8)


def files(pid: int | str = "self") -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def memory(pid: int) -> int:
    """Return kilobytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


def test_a_zygote_that_dies_takes_its_episodes_with_it_and_is_started_again(folder: Path) -> None:
    async def body(pool: RemotePool) -> Observation:
        playing = asyncio.create_task(step(pool, "family"))
        await asyncio.to_thread(wait_for, (folder / "family").exists)
        assert pool.zygote
        os.kill(pool.zygote.pid or 0, signal.SIGKILL)
        with pytest.raises(WorkerDied, match="was lost when its worker died"):
            await playing
        child, stranger = map(int, (folder / "family").read_text().split())
        await asyncio.to_thread(wait_for, lambda: not is_running(child), 5)
        os.kill(stranger, signal.SIGKILL)  # in a session of its own, and nobody is left who knows whose it is
        return await step(pool, "fine")

    assert play(body, folder=str(folder)).text == "fine"


def test_a_zygote_that_does_not_answer_is_given_up_and_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agentrl.hosting.elsewhere.episode._BURIAL_SECONDS", 0.5)

    async def body(pool: RemotePool) -> Observation:
        await step(pool, "who")
        assert pool.zygote
        os.kill(pool.zygote.pid or 0, signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(step(pool, "fine"), 0.3)
        return await step(pool, "fine")

    assert play(body).text == "fine"


@pytest.mark.parametrize(
    ("code", "error", "cause"),
    [
        ("import no_such_module", UsageError, "could not be prepared: ModuleNotFoundError: No module named"),
        ("os._exit(4)", WorkerDied, "it ended with exit code 4"),
        ("sys.exit('no')", UsageError, "SystemExit: no"),
    ],
)
def test_a_worker_that_cannot_be_prepared_says_why(code: str, error: type[Exception], cause: str) -> None:
    with pytest.raises(error, match=cause):
        step_once("fine", preload=code)


@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.1, 0.3])
def test_giving_up_while_the_worker_or_an_episode_starts_leaves_no_process(seconds: float) -> None:
    async def body(pool: RemotePool) -> None:
        playing = asyncio.create_task(step(pool, "who"))
        await asyncio.sleep(seconds)
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)

    play(body)


class Drawer(Agent):
    async def act(self, observation: Observation, conversation: Conversation) -> Action:
        return Action("draw")


async def simulate(pool: RemotePool) -> list[Trajectory]:
    limits = SimulatorConfig(reset_retries=0)
    hooks = Hooks(installed=False)
    simulator = Simulator(pool, Drawer, ScriptedEngine(lambda text: ""), limits, hooks, lambda text: None)
    groups = await simulator.play([TASK] * 10, 8, seed=3)
    return [trajectory for group in groups for trajectory in group.trajectories]


async def kill_at_random(pool: RemotePool) -> None:
    chance = random.Random(5)
    while True:
        await asyncio.sleep(0.1)
        if pool.zygote and pool.zygote.alive:
            zygote = pool.zygote.pid or 0
            victims = [zygote] if chance.random() < 0.1 else sorted(descendants(zygote))
            with suppress(ProcessLookupError, IndexError):
                os.kill(chance.choice(victims), signal.SIGKILL)


def test_killing_at_random_costs_trajectories_and_changes_no_other() -> None:
    async def troubled(pool: RemotePool) -> list[Trajectory]:
        killing = asyncio.create_task(kill_at_random(pool))
        try:
            return await simulate(pool)
        finally:
            killing.cancel()

    def ends(trajectories: list[Trajectory]) -> list[str | None]:
        return [None if each.failed or not each.final else each.final.text for each in trajectories]

    calm, survived = ends(play(simulate, size=8)), ends(play(troubled, size=8))
    assert None not in calm
    assert len(set(calm)) == 80, "each episode has a seed of its own"
    assert 0 < survived.count(None) < 80
    assert all(left in (None, right) for left, right in zip(survived, calm, strict=True))


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


def test_an_environment_that_is_not_set_up_is_refused_with_the_command(folder: Path) -> None:
    shutil.rmtree(folder / "cache")
    with pytest.raises(UsageError, match="which is not set up; set it up with: agentrl env setup remote"):
        RemotePool(Elsewhere(), 1, name="remote")


PARENT = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_hosting_elsewhere import Elsewhere, step
from agentrl.hosting.elsewhere import RemotePool, site

Elsewhere.__module__ = sys.argv[2]
site._folder_of = lambda env: Path(sys.argv[1])

async def main():
    pool = RemotePool(Elsewhere(Elsewhere.Config(folder=sys.argv[1])), 1)
    await step(pool, "family")

asyncio.run(main())
"""


def test_everything_dies_when_we_are_killed(folder: Path) -> None:
    script = textwrap.dedent(PARENT).format(tests=str(Path(__file__).parent))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script, str(folder), Elsewhere.__module__]
    with subprocess.Popen(command, env=environment) as parent:
        wait_for((folder / "family").exists, 30)
        started = descendants(parent.pid)
        assert len(started) >= 4
        parent.kill()
    wait_for(lambda: not any(map(is_running, started)))
