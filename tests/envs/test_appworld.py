"""AppWorld as agentrl plays it: splits, data, keys, and many episodes at once, in a row, and under fire.

What plays wants AGENTRL_APPWORLD_PYTHON: a python with `appworld` installed and unpacked.
"""

import asyncio
import json
import logging
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from agentrl import Action, Agent, Conversation, Group, Observation, Task, Trajectory, UsageError
from agentrl.config import SimulatorConfig, load_run_file, resolve
from agentrl.hooks import Hooks
from agentrl.hosting.elsewhere import RemotePool, Sandbox, sandbox, site_of
from agentrl.simulator import Simulator
from agentrl.testing.engines import ScriptedEngine
from agentrl_appworld import AppWorld
from agentrl_appworld.inside import playground
from agentrl_appworld.worlds import find_world
from agentrl_salt import SALT

INSIDE = Path(playground.__file__).parent
PYTHON = os.environ.get("AGENTRL_APPWORLD_PYTHON", "")
APPWORLD = pytest.mark.skipif(
    not PYTHON, reason="AGENTRL_APPWORLD_PYTHON names no python that has appworld (see docs/appworld.md)"
)
LONG = pytest.mark.timeout(1800)
# How many episodes in a row are looked at for what they leave behind.
EPISODES = int(os.environ.get("AGENTRL_APPWORLD_EPISODES", "500"))
DONE = "apis.supervisor.complete_task()"
# What an agent does in an episode: the texts of its turns, given the first observation.
Script = Callable[[str], Sequence[str]]


def fence(code: str) -> str:
    return f"Let me see.\n```python\n{code}\n```"


class Scripted(Agent):
    """Says what a script says, then no more code; asks no model."""

    def __init__(self, script: Script) -> None:
        super().__init__()
        self._script = script
        self._left: list[str] | None = None

    async def act(self, observation: Observation, conversation: Conversation) -> Action:
        if self._left is None:
            self._left = list(self._script(observation.text))
        return Action(self._left.pop(0) if self._left else "I have nothing more to say.")


def solutions(env: AppWorld, tasks: Sequence[Task]) -> Mapping[str, Sequence[str]]:
    """Return the expert's turns by what the first observation ends with."""
    found = {}
    for task in tasks:
        specs = env.world.play / "data" / "tasks" / task.id / "specs.json"
        script = env.demonstrate(task)
        assert script is not None
        found[json.loads(specs.read_text(encoding="utf-8"))["instruction"]] = script
    return found


def expert(env: AppWorld, tasks: Sequence[Task]) -> Script:
    """Return the script that solves each of these tasks."""
    known = solutions(env, tasks)
    return lambda seen: next(turns for asked, turns in known.items() if seen.endswith(asked))


async def play(
    pool: RemotePool, tasks: Sequence[Task], size: int, make_agent: Callable[[], Agent], turns: int = 6
) -> list[Group]:
    limits = SimulatorConfig(max_turns=turns, reset_timeout=300.0, step_timeout=300.0)
    hooks = Hooks(installed=False)
    simulator = Simulator(pool, make_agent, ScriptedEngine([""]), limits, hooks, lambda warning: None)
    return await simulator.play(tasks, size, seed=7)


def in_pool(env: AppWorld, size: int, work: Callable[[RemotePool], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        pool = RemotePool(env, size, "appworld")
        try:
            return await work(pool)
        finally:
            await pool.close()

    return asyncio.run(run())


@pytest.fixture
def env(appworld_files: Path) -> AppWorld:
    """Return the env with its sandbox where one can be made here."""
    try:
        sandbox.check(site_of(AppWorld, "appworld"), Sandbox())
    except UsageError:
        return AppWorld(AppWorld.Config(sandbox=False))
    return AppWorld()


def verdicts(groups: Sequence[Group]) -> list[list[bool | None]]:
    return [[t.outcome.success if t.outcome else None for t in group.trajectories] for group in groups]


# Tasks


@APPWORLD
@LONG
def test_tasks_have_scenarios_of_three_and_difficulties_and_are_read_once(env: AppWorld) -> None:
    env = AppWorld(AppWorld.Config(difficulties=(1, 2, 3)))
    tasks = env.tasks("dev")
    assert tasks is env.tasks("dev")
    scenarios = {
        task.scenario: [each.id for each in tasks if each.scenario == task.scenario] for task in tasks
    }
    assert all(ids == [f"{name}_{n}" for n in (1, 2, 3)] for name, ids in scenarios.items())
    assert {task.difficulty for task in tasks} == {1, 2, 3}
    easy = AppWorld().tasks("dev")
    assert [task.id for task in easy] == [task.id for task in tasks if task.difficulty == 1]
    assert len(env.fingerprint()["tasks"]) == 64
    with pytest.raises(UsageError, match="no split 'test': there is train, dev, test_normal, test_challenge"):
        env.tasks("test")


@pytest.mark.parametrize("split", ["test_normal", "test_challenge"])
def test_test_splits_are_measured_on_and_never_trained_on(split: str) -> None:
    assert resolve({"env": "appworld", "evaluation.split": split}).evaluation.split == split
    with pytest.raises(UsageError, match=f"holds the split '{split}' out"):
        resolve({"env": "appworld", "train_split": split})


def test_one_setting_says_how_many_turns_there_are() -> None:
    assert resolve({"env": "appworld", "model": "some/model"}).simulator.max_turns == 40
    assert resolve({"env": "appworld"}).simulator.max_turns == 4
    assert "turns" not in AppWorld.Config.model_fields


@pytest.mark.parametrize("path", sorted(Path("examples/recipes").glob("*.yaml")), ids=lambda path: path.name)
def test_every_recipe_says_what_a_run_understands(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    document = {"device": "cpu", **load_run_file(path)}
    assert resolve(document, source=str(path)).steps > 0


# Data


@APPWORLD
@LONG
def test_without_the_real_data_the_small_world_is_played_and_says_so_once(
    env: AppWorld, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "agentrl_appworld")
    env.tasks("dev")
    env.worker_config()
    (said,) = caplog.messages
    assert said.startswith("appworld plays a small world of our own tasks: AppWorld's own data is not there")
    assert not AppWorld(AppWorld.Config(world="small")).world.real
    assert "env.world=real plays AppWorld's own" in caplog.messages[1]
    with pytest.raises(UsageError, match="get it with `agentrl env setup appworld --data`"):
        AppWorld(AppWorld.Config(world="real")).tasks("train")


@APPWORLD
@LONG
def test_the_users_own_folder_is_played_and_left_as_it_is(
    env: AppWorld, appworld_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "mine"
    shutil.copytree(appworld_files / "small" / "data", root / "data")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setenv("APPWORLD_ROOT", str(root))
    mine = AppWorld(AppWorld.Config(sandbox=env.config.sandbox))
    assert mine.world.real
    assert not [path for path in mine.world.play.rglob("*") if path.name == playground.GROUND_TRUTH]
    assert find_world("auto", appworld_files) == mine.world, "copied once"
    tasks = mine.tasks("dev")[:1]
    script = expert(mine, tasks)
    groups = in_pool(mine, 1, lambda pool: play(pool, tasks, 1, lambda: Scripted(script)))
    assert verdicts(groups) == [[True]], groups[0].trajectories[0].error
    assert sorted(tmp_path.rglob("*")) == before
    (root / "data" / "tasks" / tasks[0].id / "specs.json").write_text("{}", encoding="utf-8")
    assert find_world("auto", appworld_files) != mine.world, "copied again when it has changed"
    assert not find_world("small", appworld_files).real
    monkeypatch.setenv("APPWORLD_ROOT", str(tmp_path))
    with pytest.raises(UsageError, match="which holds no data/ of AppWorld with its ground truth"):
        find_world("auto", appworld_files)


def fetch(files: Path, *bundle: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PYTHON, str(INSIDE / "real_data.py"), str(files), *map(str, bundle)],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def pack(root: Path, path: Path) -> None:
    """Make a bundle of `root`/data as AppWorld makes its own."""
    code = (
        "import sys\nfrom appworld.common.constants import PASSWORD, SALT\n"
        "from appworld.common.utils import pack_bundle\n"
        "pack_bundle(sys.argv[2], sys.argv[1], ['data'], PASSWORD, SALT)"
    )
    subprocess.run([PYTHON, "-c", code, str(root), str(path)], check=True, capture_output=True)


@APPWORLD
@LONG
def test_a_bundle_that_was_carried_over_is_unpacked_and_a_damaged_one_changes_nothing(
    appworld_files: Path, tmp_path: Path
) -> None:
    files, source = tmp_path / "files", tmp_path / "source"
    shutil.copytree(appworld_files / "small" / "data", source / "data")
    pack(source, tmp_path / "data.bundle")
    done = fetch(files, tmp_path / "data.bundle")
    assert done.returncode == 0, done.stderr
    world = find_world("auto", files)
    assert (world.truth, world.play, world.real) == (files / "real", files / "real_play", True)
    assert not [path for path in world.play.rglob("*") if path.name == playground.GROUND_TRUTH]
    before = sorted(files.rglob("*"))
    (tmp_path / "damaged.bundle").write_bytes((tmp_path / "data.bundle").read_bytes()[:-100])
    shutil.rmtree(source / "data" / "datasets")
    pack(source, tmp_path / "empty.bundle")
    for name, said in (
        ("damaged", "is no bundle of AppWorld's data, or damaged"),
        ("empty", "what came holds no AppWorld data"),
        ("missing", "there is no file"),
    ):
        failed = fetch(files, tmp_path / f"{name}.bundle")
        assert failed.returncode == 1
        assert said in failed.stderr.strip().splitlines()[-1]
        assert sorted(files.rglob("*")) == before
    assert "is in" in fetch(files).stdout, "and nothing is downloaded where it is already"


@APPWORLD
@LONG
def test_a_download_that_fails_says_what_to_do_and_leaves_nothing(tmp_path: Path) -> None:
    failed = fetch(tmp_path, HTTPS_PROXY="http://127.0.0.1:9", https_proxy="http://127.0.0.1:9")
    assert failed.returncode == 1
    assert failed.stderr.strip() == (
        "AppWorld's data could not be downloaded (ProxyError); download "
        "https://s3.us-west-2.amazonaws.com/appworld.dev/data-0.1.0.bundle elsewhere, carry it over and use "
        "--bundle FILE"
    )
    assert not list(tmp_path.iterdir())


# Keys


@APPWORLD
@LONG
def test_different_programs_with_the_same_calls_are_the_same_step(env: AppWorld) -> None:
    one = 'for app in ("phone", "venmo"): apis.api_docs.show_api_descriptions(app_name=app)\ndel app'
    other = (
        "# Look first\n[apis.api_docs.show_api_descriptions(app_name=a) for a in ['phone', 'venmo']] and None"
    )
    fewer = 'apis.api_docs.show_api_descriptions(app_name="phone")'
    programs = [one, other, fewer]
    task = env.tasks("train")[0]
    agents = iter([Scripted(lambda seen, code=code: [fence(code), fence(DONE)]) for code in programs])  # type: ignore[misc]
    (group,) = in_pool(env, 1, lambda pool: play(pool, [task], 3, lambda: next(agents)))
    keys = [[turn.action.key for turn in t.turns] for t in group.trajectories]
    assert keys[0] == keys[1]
    assert keys[2][0] != keys[0][0]
    assert keys[2][1] == keys[0][1] is not None
    paths = SALT().edges(group)
    assert paths[0] == paths[1]
    assert paths[2][0] != paths[0][0]


# Many episodes


@APPWORLD
@LONG
def test_sixteen_episodes_of_one_task_at_once_are_all_judged_right(env: AppWorld) -> None:
    task = next(task for task in env.tasks("train") if task.scenario == "notewrite00")
    truth = env.world.truth / "data" / "tasks" / task.id / "ground_truth"
    wrong = fence(json.loads((truth / "near_misses.json").read_text(encoding="utf-8"))["wrong"])
    right = env.demonstrate(task) or []
    agents = iter([Scripted(lambda seen, n=n: [wrong] if n % 3 == 0 else right) for n in range(16)])  # type: ignore[misc]
    groups = in_pool(env, 16, lambda pool: play(pool, [task], 16, lambda: next(agents)))
    # Agents are made in the order in which worlds are ready, so what was said tells which is which.
    for trajectory in groups[0].trajectories:
        assert trajectory.outcome is not None, trajectory.error
        assert trajectory.outcome.success == (trajectory.turns[0].action.text != wrong)
    assert sum(t.outcome.success for t in groups[0].trajectories if t.outcome) == 10
    assert not leftovers(env)


def leftovers(env: AppWorld) -> list[Path]:
    """Return the folders that episodes and judgements have left."""
    roots = (env.world.play, env.world.truth)
    return [path for root in roots for path in (root / "experiments" / "outputs").glob("*")]


def processes(session: int) -> set[int]:
    """Return the processes below another one."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(status.parent.name))
    found: set[int] = set()
    ready = [session]
    while ready:
        below = children.get(ready.pop(), [])
        found |= set(below)
        ready += below
    return found


def resident_mb(pids: set[int]) -> float:
    """Return the memory that processes have to themselves."""
    total = 0
    for pid in pids:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_"))
    return total / 1024


def idle_judges(pool: RemotePool) -> set[int]:
    """Return the processes that are kept for further judgements; others follow after so many."""
    assert pool._court is not None
    return {bench.pid for bench in pool._court._idle if bench.pid is not None}


@APPWORLD
@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_many_episodes_in_a_row_leave_no_process_no_folder_and_no_growth_of_memory(env: AppWorld) -> None:
    tasks = env.tasks("train")
    script = expert(env, tasks)

    async def work(pool: RemotePool) -> tuple[list[set[int]], list[float]]:
        standing, sizes = [], []
        for part in range(5):
            some = [tasks[n % len(tasks)] for n in range(part * EPISODES // 5, (part + 1) * EPISODES // 5)]
            groups = await play(pool, some, 1, lambda: Scripted(script))
            assert verdicts(groups) == [[True]] * len(some)
            await asyncio.sleep(1.0)
            standing.append(processes(os.getpid()) - idle_judges(pool))
            sizes.append(resident_mb(standing[-1]))
        return standing, sizes

    before = processes(os.getpid())
    standing, sizes = in_pool(env, 2, work)
    assert all(each == standing[0] for each in standing), "only the workers stand"
    assert sizes[-1] < sizes[0] + 8, f"the workers hold {sizes} MB"
    assert processes(os.getpid()) <= before
    assert not leftovers(env)


@APPWORLD
@LONG
def test_killing_workers_costs_trajectories_and_no_wrong_judgement(env: AppWorld) -> None:
    tasks = env.tasks("train")[:8]
    known = solutions(env, tasks)

    def half_right(seen: str) -> Sequence[str]:
        index, turns = next((n, t) for n, (asked, t) in enumerate(known.items()) if seen.endswith(asked))
        look = fence("print(apis.api_docs.show_app_descriptions())")
        return [look, look, *turns] if index % 2 == 0 else [look, fence(DONE)]

    class UnderFire(Scripted):
        chance = random.Random(3)

        async def act(self, observation: Observation, conversation: Conversation) -> Action:
            victims = sorted(processes(os.getpid()))
            if victims and self.chance.random() < 0.15:
                with suppress(ProcessLookupError):
                    os.kill(self.chance.choice(victims), signal.SIGKILL)
            return await super().act(observation, conversation)

    def groups(agent: type[Scripted]) -> list[Group]:
        found: list[Group] = in_pool(env, 4, lambda pool: play(pool, tasks, 3, lambda: agent(half_right)))
        return found

    expected, found = groups(Scripted), groups(UnderFire)
    pairs = [
        (one, other)
        for before, after in zip(expected, found, strict=True)
        for one, other in zip(before.trajectories, after.trajectories, strict=True)
    ]
    assert all(one.outcome for one, _ in pairs)
    lost = [other for _, other in pairs if other.failed]
    assert 0 < len(lost) < len(pairs), [other.error for other in lost]
    assert all(_essence(one) == _essence(other) for one, other in pairs if not other.failed)
    assert all(other.error and other.outcome is None for other in lost)


def _essence(trajectory: Trajectory) -> tuple[object, ...]:
    """Return what the same episode has in common however it was disturbed."""
    return trajectory.seed, trajectory.outcome, [turn.action.key for turn in trajectory.turns]
