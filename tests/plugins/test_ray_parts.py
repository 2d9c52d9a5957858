"""What the runtime `ray` does without Ray: who gets what, what nodes are looked at for, how messages go."""

import os
import threading
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from pydantic import ValidationError

from agentrl import __version__
from agentrl.errors import UsageError
from agentrl.interfaces import Crew
from agentrl.runtime import Plan
from agentrl_ray import RayRuntime
from agentrl_ray.config import RayConfig
from agentrl_ray.network import interface_of
from agentrl_ray.placement import Place, lay_out
from agentrl_ray.transport import PIECE, pieces
from agentrl_ray.visiting import invite, prepare
from agentrl_ray.wire import pair

# Placement


def test_every_rank_engine_and_house_has_a_bundle() -> None:
    plan = Plan(Crew(2), Crew(1), workers=5)
    layout = lay_out(plan, RayConfig(colocate=False, trainer_cpus=4, env_cpus=0.5), nodes=2)
    assert layout.bundles == [{"CPU": 4.0}, {"CPU": 4.0}, {"CPU": 1.0}, {"CPU": 1.5}, {"CPU": 1.0}]
    assert layout.trainer == [Place(0, 4), Place(1, 4)]
    assert layout.engine == [Place(2, 1)]
    assert layout.houses == [Place(3, 1.5, workers=3), Place(4, 1.0, workers=2)]
    assert layout.total == {"CPU": 11.5}


def test_colocated_engines_share_the_gpus_of_ranks() -> None:
    layout = lay_out(Plan(Crew(2), Crew(3), device="cuda"), RayConfig(), nodes=1)
    assert layout.bundles == [{"CPU": 2.0, "GPU": 1.0}] * 2 + [{"CPU": 1.0, "GPU": 1.0}]
    assert layout.trainer == [Place(0, 1, 0.5), Place(1, 1, 0.5)]
    assert layout.engine == [Place(0, 1, 0.5), Place(1, 1, 0.5), Place(2, 1, 1.0)]


def test_apart_everybody_has_gpus_of_its_own() -> None:
    plan = Plan(Crew(1), Crew(1, gpus=4), device="cuda:1")
    layout = lay_out(plan, RayConfig(colocate=False), nodes=1)
    assert layout.bundles == [{"CPU": 1.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 4.0}]
    assert (layout.trainer[0].gpus, layout.engine[0].gpus) == (1, 4)
    with pytest.raises(UsageError, match=r"set runtime\.colocate=false"):
        lay_out(plan, RayConfig(), nodes=1)
    assert lay_out(replace(plan, device="cpu"), RayConfig(), nodes=1).bundles == [{"CPU": 2.0}]


def test_there_are_no_more_houses_than_workers_and_as_many_as_were_asked_for() -> None:
    plan = Plan(workers=3)
    assert [place.workers for place in lay_out(plan, RayConfig(), nodes=8).houses] == [1, 1, 1]
    assert [place.workers for place in lay_out(plan, RayConfig(env_houses=2), nodes=8).houses] == [2, 1]
    assert lay_out(Plan(), RayConfig(), nodes=8).bundles == []


# What nodes have to be like


def test_a_node_that_sees_the_folders_and_has_the_same_version_is_fit(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    visit = invite({"model": tmp_path})
    assert (visit.version, visit.folder) == (__version__, os.getcwd())
    prepare(visit, "10.0.0.2")


def test_a_node_that_does_not_see_a_folder_is_not_fit(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("env: deepsearch")
    visit = invite({"run directory": tmp_path})
    (tmp_path / "run.yaml").write_text("another one")
    with pytest.raises(
        UsageError, match=r"the node 10\.0\.0\.2 does not see the run directory .*; put it where"
    ):
        prepare(visit, "10.0.0.2")


def test_a_node_with_another_version_is_not_fit() -> None:
    with pytest.raises(UsageError, match=f"has agentrl {__version__}, and the run 99"):
        prepare(replace(invite({}), version="99"), "10.0.0.2")


def test_modules_of_the_run_are_found_behind_those_of_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ["first"]
    monkeypatch.setattr("sys.path", path)
    prepare(replace(invite({}), modules=(str(tmp_path), "first", "/is/not/there")), "10.0.0.2")
    assert path == ["first", str(tmp_path)]


@pytest.mark.skipif(not Path("/sys/class/net/lo").is_dir(), reason="asks Linux for its network interfaces")
def test_the_interface_with_an_address_is_found() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.1") is None


# Messages and files


def test_whoever_waits_at_either_end_of_a_wire_wakes_up_when_it_is_hung_up() -> None:
    wire, there = pair()
    wire.connection.send_bytes(b"the last word")
    heard: list[str] = []

    def wait() -> None:
        try:
            wire.connection.recv_bytes()
        except EOFError:
            heard.append("the end")

    thread = threading.Thread(target=wait)
    thread.start()
    wire.hang_up()
    wire.hang_up()
    thread.join(30)
    assert heard == ["the end"]
    assert there.recv_bytes() == b"the last word"
    with pytest.raises(EOFError):
        there.recv_bytes()
    wire.close()
    there.close()


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, [(0, 0)]), (5, [(0, 5)]), (PIECE, [(0, PIECE)]), (PIECE + 1, [(0, PIECE), (PIECE, 1)])],
)
def test_pieces_make_up_a_file(size: int, expected: list[tuple[int, int]]) -> None:
    assert list(pieces(size)) == expected


# What is refused


def test_rays_client_is_refused() -> None:
    with pytest.raises(ValidationError, match="start the run on a node of the cluster"):
        RayConfig(address="ray://head:10001")


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_it_says_what_to_install() -> None:
    with pytest.raises(UsageError, match=r"pip install 'agentrl-platform\[ray\]'"):
        RayRuntime().start(Plan(workers=1))


def test_what_was_never_started_can_be_closed() -> None:
    runtime = RayRuntime()
    runtime.close()
    runtime.close()
