"""The runtime `ray` on real Ray: a cluster of two nodes on this machine, whose actors and nodes die."""

import asyncio
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest

import forms
from agentrl.errors import AgentRLError, EnvLost, UsageError
from agentrl.hosting.housing import Housing
from agentrl.interfaces import Crew, Resources
from agentrl.plugins import make
from agentrl.runtime import Plan, Program
from agentrl.types import Group, Segment, Span, Task, Trajectory
from agentrl_ray import RayRuntime, transport
from agentrl_ray.transport import PIECE, pieces
from whole_runs import agentrl, command, finish, metrics, resume, settings, wait_for_steps, words

ray = pytest.importorskip("ray", reason="install agentrl's extra 'ray'")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NODE = {"num_cpus": 4, "object_store_memory": 100 * 2**20}
ECHO = """
import sys
from multiprocessing.connection import Connection
from pathlib import Path

connection = Connection(int(sys.argv[1]))
try:
    while True:
        said = connection.recv()
        if isinstance(said, int):
            sys.exit("why" if said else 0)
        if isinstance(said, tuple):
            path, data = said
            path.write_bytes(data)
        if isinstance(said, Path):
            said = said.read_bytes()
        connection.send(said)
except EOFError:
    pass
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Return a cluster of two nodes; the run is on the first."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    made.add_node(**NODE)
    yield made
    ray.shutdown()
    made.shutdown()


@contextmanager
def running(cluster: Any, plan: Plan, **options: Any) -> Iterator[RayRuntime]:
    """Start the runtime, spread over the nodes."""
    config = {"address": cluster.address, "strategy": "STRICT_SPREAD", "wait": 300, **options}
    with closing(RayRuntime(RayRuntime.Config(**config))) as runtime:
        runtime.start(plan)
        yield runtime


@pytest.fixture
def echo(tmp_path: Path) -> Program:
    """Return a process that says what it is told."""
    (tmp_path / "echo_for_ray.py").write_text(ECHO)
    return Program("echo_for_ray", "trainer", 0, variables={"PYTHONPATH": str(tmp_path)})


def two(program: Program) -> list[Program]:
    return [program, replace(program, number=1)]


def nodes_of(*peers: Any) -> list[str]:
    return [peer._born.node for peer in peers]


# Processes


def test_processes_on_two_nodes_talk_as_if_they_were_here(cluster: Any, echo: Program) -> None:
    with running(cluster, Plan(Crew(2))) as runtime:
        peers = runtime.launch(two(echo))
        assert len(set(nodes_of(*peers))) == 2
        large = bytes(range(256)) * 2**17
        for peer in peers:
            peer.connection.send(large)
            peer.connection.send({"after": "it"})
        missing = {peer.connection for peer in peers}
        while missing:
            for connection in wait(list(missing)):
                assert connection.recv() == large
                missing.discard(connection)
        assert [peer.connection.recv() for peer in peers] == [{"after": "it"}] * 2
        assert [peer.threads for peer in peers] == [1, 1]
        with runtime.meeting(peers) as place:
            assert place.startswith("tcp://")


def test_how_a_process_ended_is_known(cluster: Any, echo: Program) -> None:
    with running(cluster, Plan(Crew(2))) as runtime:
        one, other = runtime.launch(two(echo))
        one.connection.send(1)
        os.kill(other.pid, signal.SIGKILL)
        for peer in (one, other):
            with pytest.raises(EOFError):
                peer.connection.recv()
        assert one.epitaph().startswith("ended with exit code 1 (why) on the node ")
        assert other.epitaph().startswith("was killed by signal 9 on the node ")


def test_a_process_is_ended_and_its_room_free_again(cluster: Any, echo: Program) -> None:
    with running(cluster, Plan(Crew(2))) as runtime:
        for _ in range(2):
            peers = runtime.launch(two(echo))
            os.kill(peers[0].pid, signal.SIGSTOP)
            for peer in peers:
                peer.end(0.0)
                peer.end(0.0)
                peer.connection.close()
            assert not any(Path(f"/proc/{peer.pid}").exists() for peer in peers)


def test_files_are_carried_to_another_node_and_back(cluster: Any, echo: Program, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "large").write_bytes(random.Random(0).randbytes(40 * 2**20))
    (folder / "empty").write_bytes(b"")
    with running(cluster, Plan(Crew(2))) as runtime:
        near, far = sorted(runtime.launch(two(echo)), key=lambda peer: not peer._near)
        assert near.deliver(folder) == folder
        there = far.deliver(folder)
        assert there != folder
        for name in ("large", "empty"):
            far.connection.send(there / name)
            assert far.connection.recv() == (folder / name).read_bytes()
        assert far.deliver(folder) != there
        assert not there.exists()
        for peer in (near, far):

            def write(path: Path, peer: Any = peer) -> None:
                peer.connection.send((path, b"from there"))
                peer.connection.recv()

            with peer.received(10, write) as here:
                assert here.read_bytes() == b"from there"
            assert not here.parent.exists()


def test_a_node_gets_files_once_however_many_processes_it_keeps(
    cluster: Any, echo: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    monkeypatch.setattr(transport, "pieces", lambda size: sent.append(size) or pieces(size))
    folders = [tmp_path / str(version) for version in range(3)]
    for version, folder in enumerate(folders):
        (folder / "model").mkdir(parents=True)
        (folder / "model" / "weights").write_bytes(random.Random(version).randbytes(PIECE + 100))

    def read(peer: Any, place: Path) -> bytes:
        peer.connection.send(place / "model" / "weights")
        found: bytes = peer.connection.recv()
        return found

    def bring(peers: list[Any], version: int) -> list[Path]:
        """Have all ask at once, and see that each finds the files."""
        with ThreadPoolExecutor() as threads:
            places = list(threads.map(lambda peer: peer.deliver(folders[version]), peers))
        expected = (folders[version] / "model" / "weights").read_bytes()
        found = [read(peer, place) for peer, place in zip(peers, places, strict=True)]
        assert found == [expected] * len(peers)
        return places

    with running(cluster, Plan(Crew(6)), strategy="SPREAD") as runtime:
        programs = [replace(echo, number=number) for number in range(6)]
        peers = runtime.launch(programs)
        far = [peer for peer in peers if not peer._near]
        assert len(far) == 3
        first = bring(far, 0)
        assert len(sent) == 1
        assert len(set(first)) == 3
        second = [*bring(far[:1], 1), *bring(far[1:], 1)]
        assert len(sent) == 2
        assert not any(place.exists() for place in first)

        # Whoever had them last, or first, is lost; another on its node has them from those that are left.
        for lost in (far[2], far[0]):
            kill_keeper(lost)
            assert "was lost with" in lost.epitaph()
            (again,) = runtime.launch([programs[peers.index(lost)]])
            far[far.index(lost)] = peers[peers.index(lost)] = again
            second += bring([again], 1)
        assert len(sent) == 2
        assert read(far[1], second[1]) == (folders[1] / "model" / "weights").read_bytes()

        # What is another file by now is sent.
        (folders[1] / "model" / "weights").write_bytes(b"others of the same name")
        second += bring(far, 1)
        assert len(sent) == 3
        last = bring(far, 2)
        assert len(sent) == 4
        assert not any(place.exists() for place in second)
    assert not any(place.exists() for place in last)


def kill_keeper(peer: Any) -> None:
    status = Path(f"/proc/{peer.pid}/status").read_text()
    os.kill(int(status.partition("PPid:")[2].split()[0]), signal.SIGKILL)


def test_a_process_ends_with_the_actor_that_keeps_it(cluster: Any, echo: Program, tmp_path: Path) -> None:
    with running(cluster, Plan(Crew(2))) as runtime:
        near, far = sorted(runtime.launch(two(echo)), key=lambda peer: not peer._near)
        kill_keeper(far)
        with pytest.raises(EOFError):
            far.connection.recv()
        assert "was lost with the Ray actor on the node" in far.epitaph()
        with pytest.raises(EOFError, match="was lost with"):
            far.deliver(tmp_path)
        far.end(0.0)
        deadline = time.monotonic() + 60
        while Path(f"/proc/{far.pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not Path(f"/proc/{far.pid}").exists()
        near.connection.send("still there")
        assert near.connection.recv() == "still there"


def test_a_process_that_is_lost_with_its_node_is_told_so_and_can_be_started_elsewhere(
    cluster: Any, echo: Program
) -> None:
    third = cluster.add_node(**NODE, resources={"third": 1})
    with running(cluster, Plan(Crew(3)), strategy="STRICT_SPREAD") as runtime:
        programs = [replace(echo, number=number) for number in range(3)]
        peers = runtime.launch(programs)
        (lost,) = [peer for peer in peers if peer._born.node == third.node_id]
        cluster.remove_node(third, allow_graceful=False)
        with pytest.raises(EOFError):
            lost.connection.recv()
        assert "which is gone" in lost.epitaph()
        cluster.add_node(**NODE)
        (again,) = runtime.launch([programs[peers.index(lost)]])
        again.connection.send("back")
        assert again.connection.recv() == "back"


# What is refused


def test_a_cluster_without_room_is_one_sentence(cluster: Any) -> None:
    sentence = r"needs 100 CPUs in 1 bundles \(STRICT_SPREAD\), and its"
    with (
        pytest.raises(UsageError, match=sentence),
        running(cluster, Plan(Crew(1)), trainer_cpus=100, wait=2),
    ):
        pass


def test_no_cluster_is_one_sentence() -> None:
    with pytest.raises(UsageError, match="start one with `ray start --head`"):
        RayRuntime(RayRuntime.Config(address="127.0.0.1:1")).start(Plan(Crew(1)))


def test_a_folder_that_nodes_do_not_see_is_one_sentence(cluster: Any, echo: Program, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with running(cluster, Plan(Crew(2), folders={"model": tmp_path})) as runtime:
        (tmp_path / "config.json").unlink()
        with pytest.raises(UsageError, match=r"does not see the model .*; put it where all nodes"):
            runtime.launch(two(echo))


# Trainers


def play(seed: int) -> list[Group]:
    """Return two groups of two trajectories of random tokens."""
    rng = random.Random(seed)
    groups = []
    for name in range(2):
        members = []
        for _ in range(2):
            ids = [rng.randrange(10, 60) for _ in range(12)]
            segments = [Segment(ids, [Span(5, [-4.0] * 6, 0)])]
            members.append(Trajectory(Task(f"{name}"), segments=segments, reward=rng.random()))
        groups.append(Group(Task(f"{name}"), members))
    return groups


@contextmanager
def trainer(runtime: Any = None) -> Iterator[Any]:
    from agentrl_torch import TorchTrainer

    config = TorchTrainer.Config(ranks=2, learning_rate=1e-3, audit_threshold=1e9)
    with closing(TorchTrainer(config)) as made:
        made.start(make("model", "tiny").path(), frozenset({"groups"}), 10, Resources(runtime=runtime))
        yield made


def update(made: Any, seed: int = 0) -> None:
    from agentrl_grpo import GRPO

    algorithm = GRPO()
    batch = made.prepare(play(seed), algorithm.needs)
    made.update(batch, algorithm.credit(batch), algorithm)


def test_ranks_on_two_nodes_learn_what_they_learn_on_one_machine(cluster: Any, tmp_path: Path) -> None:
    found = []
    with running(cluster, Plan(Crew(2))) as runtime:
        for where in (None, runtime):
            with trainer(where) as made:
                update(made)
                made.save(tmp_path / "checkpoint")
                found.append({name: tensor.clone() for name, tensor in made.weights().items()})
                if where:
                    assert len(set(nodes_of(*(rank.peer for rank in made.training._crew)))) == 2
    assert max(float((found[0][name] - found[1][name]).abs().max()) for name in found[0]) < 1e-5


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_is_lost_is_one_sentence_and_the_end_of_all(cluster: Any, victim: int) -> None:
    with running(cluster, Plan(Crew(2))) as runtime, trainer(runtime) as made:
        pids = [rank.peer.pid for rank in made.training._crew]
        kill_keeper(made.training._crew[victim].peer)
        sentence = f"the trainer's rank {victim} was lost with the Ray actor on the node .*; --resume goes on"
        with pytest.raises(AgentRLError, match=sentence):
            update(made)
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


# Envs


def lose_house(cluster: Any, kill: Callable[[Any], None]) -> None:
    """Lose the house of one of two envs in the midst of an episode; both places can be played at again."""
    env = make("env", "deepsearch")
    task = env.tasks("train")[0]

    async def scene(runtime: RayRuntime) -> None:
        pool = runtime.pool(Housing("deepsearch", env.config.model_dump(mode="json"), 2))
        one, other = await pool.acquire(), await pool.acquire()
        seen = [await each.reset(task, 1) for each in (one, other)]
        assert seen[0] == seen[1]
        await asyncio.to_thread(kill, one)
        with pytest.raises(EnvLost):
            await one.judge()
        await pool.release(one, broken=True)
        assert not (await other.judge()).success
        await pool.release(other)
        again = [await pool.acquire() for _ in range(2)]
        assert [await each.reset(task, 1) for each in again] == seen
        for each in again:
            await pool.release(each)
        await pool.close()

    with running(cluster, Plan(workers=2), env_houses=2) as runtime:
        asyncio.run(scene(runtime))


def test_a_house_that_dies_is_built_again(cluster: Any) -> None:
    lose_house(cluster, lambda env: ray.kill(env._house))


def test_an_error_of_an_env_on_another_node_is_what_it_would_be_here(cluster: Any) -> None:
    async def scene(runtime: RayRuntime) -> None:
        pool = runtime.pool(Housing("deepsearch", {}, 1))
        env = await pool.acquire()
        with pytest.raises(AgentRLError, match="the task 'no such task' is from a file"):
            await env.reset(Task("no such task", data={}), 1)
        await pool.release(env, broken=True)
        await pool.close()

    with running(cluster, Plan(workers=1)) as runtime:
        asyncio.run(scene(runtime))


# Whole runs

RANKED = {"simulator.workers": 2, "trainer.ranks": 2}


def train(folder: Path, **settings: Any) -> list[dict[str, Any]]:
    """See a run through, and return its metrics."""
    finish(command(folder, **RANKED, **settings))
    return metrics(folder)


def on_nodes(cluster: Any) -> dict[str, Any]:
    return {"runtime": "ray", "runtime.address": cluster.address, "runtime.strategy": "SPREAD"}


def test_a_run_on_two_nodes_has_the_numbers_of_one_on_this_machine(cluster: Any, tmp_path: Path) -> None:
    here = train(tmp_path / "here", steps=2)
    there = train(tmp_path / "there", steps=2, **on_nodes(cluster))
    assert_alike(here, there)


def assert_alike(one: list[dict[str, float]], other: list[dict[str, float]]) -> None:
    """Who is computed beside whom depends on when workers answer, and with it the last digits."""
    names = ("reward", "tokens", "trainer/loss", "trainer/grad_norm")
    for left, right in zip(one, other, strict=True):
        expected = pytest.approx([right[name] for name in names], rel=1e-4, abs=1e-4)
        assert [left[name] for name in names] == expected


# A run whose houses are killed when an env in them has answered for the so-and-so-many-th time.
LOSING_HOUSES = """
import os, signal, sys
from itertools import count
from agentrl.cli import main
from agentrl_ray.housed_env import HousedEnv

step, counted, losses = HousedEnv.step, count(1), {int(each) for each in sys.argv[1].split(",")}

async def step_and_lose(self, action):
    answer = await step(self, action)
    if next(counted) in losses:
        number = await self._house.__ray_call__.remote(lambda house: os.getpid())
        os.kill(number, signal.SIGKILL)
    return answer

HousedEnv.step = step_and_lose
main(sys.argv[2:])
"""


def test_a_run_that_loses_houses_amid_episodes_has_the_numbers_of_a_calm_one(
    cluster: Any, tmp_path: Path
) -> None:
    sets = {"simulator.workers": 4, "steps": 3}
    finish(command(tmp_path / "calm", **sets))
    there = words(tmp_path / "hit", **sets, **on_nodes(cluster), **{"runtime.env_houses": 2})
    said = " ".join(finish([sys.executable, "-c", LOSING_HOUSES, "15,40", *there]).stderr.split())
    assert said.count("2 env workers: was lost with the Ray actor on the node") == 2, said
    assert said.count("what they played is played again") == 2
    calm, hit = metrics(tmp_path / "calm"), metrics(tmp_path / "hit")
    assert_alike(hit, calm)
    assert [row["failed"] for row in hit] == [0, 0, 0]


def test_a_run_that_loses_a_node_says_so_and_resumes_to_the_same_numbers(tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    second = cluster.add_node(**NODE)
    try:
        sets = {**on_nodes(cluster), "checkpoints.every": 1, "steps": 4}
        calm = train(tmp_path / "calm", **sets)
        folder = tmp_path / "hit"
        line = command(folder, **RANKED, **sets)
        with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
            wait_for_steps(process, folder, 1)
            cluster.remove_node(second, allow_graceful=False)
            _, said = process.communicate()
        assert process.returncode == 1, said
        assert "which is gone; --resume goes on from the last checkpoint" in " ".join(said.split())
        assert "Traceback" not in said
        assert len(metrics(folder)) < len(calm)
        cluster.add_node(**NODE)
        resume(folder)
        assert_alike(metrics(folder), calm)
    finally:
        cluster.shutdown()


FORMS = {
    **{"warmup": 2, "steps": 1, "tasks_per_step": 2, "group_size": 4, "evaluation.tasks": 4, "threads": 1},
    "simulator.workers": 4,
}


def test_envs_in_another_virtual_environment_play_on_every_node_that_has_it_or_may_set_it_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.cluster_utils import Cluster

    site, caches = tmp_path / "site", [tmp_path / "first", tmp_path / "second"]
    variables = forms.install(site, caches[0])
    forms.set_up(site, variables)
    cluster = Cluster()
    try:
        for number, cache in enumerate(caches):
            # What processes of a node find is what its Ray was started with.
            monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
            cluster.add_node(**NODE, **({} if number else {"include_dashboard": False}))

        def play(name: str, **sets: Any) -> subprocess.CompletedProcess[str]:
            line = ["run", "--env", "forms", "--algo", "grpo", "--out", name, *settings({**FORMS, **sets})]
            return subprocess.run(
                agentrl(*line), capture_output=True, text=True, env=variables, cwd=tmp_path, check=False
            )

        spread = {**on_nodes(cluster), "runtime.env_houses": 4}
        said = " ".join(play("refused", **spread).stderr.split())
        sentence = r"on the node \S+: the env 'forms' plays in .*, which is not set up; set it up with"
        assert re.search(sentence, said), said
        assert "Traceback" not in said
        assert not list(caches[1].rglob("done.json"))

        # Of the two houses of a node one sets it up, and the other waits for that.
        for name, sets in (("built", {**spread, "runtime.setup": True}), ("there", spread), ("here", {})):
            done = play(name, **sets)
            assert done.returncode == 0, done.stdout + done.stderr
            assert "not replaced" not in done.stderr
            assert len(list(caches[1].rglob("done.json"))) == 1
            assert metrics(tmp_path / name)[0]["failed"] == 0
        assert_alike(metrics(tmp_path / "built"), metrics(tmp_path / "here"))
        assert_alike(metrics(tmp_path / "there"), metrics(tmp_path / "here"))
    finally:
        cluster.shutdown()
