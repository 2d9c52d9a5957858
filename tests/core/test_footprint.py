"""What devices hold at which moment, and how a machine is described."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agentrl import UsageError, hardware
from agentrl.activity import Activities, Activity
from agentrl.cli.dry_run import machine
from agentrl.footprint import Holding, Load, Occupant, Rehearsal, loads, peak
from agentrl.hardware import GIB, parse
from agentrl.summary import busy
from agentrl.tables import busy_chart, busy_marks
from agentrl.usage import memory_metrics


def occupant(name: str, *holdings: Holding, device: str = "cuda:0") -> Occupant:
    return Occupant(name, "main", device, 1, holdings)


def fullest(occupants: list[Occupant], *, overlapping: bool = False) -> dict[str, Load]:
    return {device: peak(each) for device, each in loads(occupants, overlapping=overlapping).items()}


def test_a_device_is_fullest_when_engine_or_trainer_works_and_not_with_the_sum() -> None:
    engine = occupant("engine", Holding("weights", 10), Holding("cache", 50, "playing"))
    trainer = occupant("trainer", Holding("weights", 20), Holding("activations", 40, "learning"))
    most = fullest([engine, trainer])["cuda:0"]
    assert (most.moment, most.bytes) == ("playing", 80)
    most = fullest([engine, trainer], overlapping=True)["cuda:0"]
    assert (most.moment, most.bytes) == ("learning", 120)


def test_what_is_split_after_it_was_loaded_is_not_counted_twice() -> None:
    whole, part = Holding("whole", 100, "loading"), Holding("part", 30, "afterwards")
    most = fullest([occupant("trainer", whole, part, Holding("gradients", 60, "learning"))])["cuda:0"]
    assert (most.moment, most.bytes) == ("loading", 100)


def test_what_lies_elsewhere_is_counted_there() -> None:
    holdings = Holding("weights", 5), Holding("file", 7, "handing over", "cpu")
    found = fullest([occupant("trainer", *holdings)])
    assert found["cuda:0"].bytes == 5
    assert (found["cpu"].bytes, found["cpu"].moment) == (7, "handing over")


def test_what_is_shared_is_counted_once_on_each_device() -> None:
    file = Holding("file", 7, "handing over", "cpu", shared=True)
    engines = [occupant(f"engine {number}", Holding("weights", 5), file) for number in range(2)]
    found = fullest([*engines, occupant("run", Holding("new", 1), replace(file, device="cpu, machine 2"))])
    assert (found["cpu"].bytes, found["cpu, machine 2"].bytes, found["cuda:0"].bytes) == (7, 7, 11)


@pytest.mark.parametrize(
    ("text", "machines", "each"), [("80", 1, 1), ("8x80", 1, 8), ("4x8x80", 4, 8), ("2x141GB", 1, 2)]
)
def test_machines_are_described_as_machines_times_gpus_times_gigabytes(
    text: str, machines: int, each: int
) -> None:
    found = parse(text)
    assert (found.machines, found.each, found.described) == (machines, each, True)
    assert found.gpus is not None
    assert found.gpus[0] == (141 if "141" in text else 80) * GIB


def test_a_described_machine_may_have_main_memory() -> None:
    assert parse("8x80", 512).memory == 512 * 2**30
    assert parse("8x80").memory is None
    with pytest.raises(UsageError, match="--memory belongs to the machine that --gpus describes"):
        machine(None, 512, dry_run=True)


def test_free_memory_is_what_nobody_has_within_a_containers_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = {name: tmp_path / name for name in ("_MEMORY", "_LIMIT", "_TAKEN", "_TAKEN_FOR")}
    for name, path in paths.items():
        monkeypatch.setattr(hardware, name, path)
    assert hardware.free_memory() is None
    paths["_MEMORY"].write_text("MemTotal:  9000 kB\nMemAvailable:  5000 kB\nHugePages_Total:  0\n")
    assert hardware.free_memory() == 5000 * 1024
    paths["_LIMIT"].write_text("4096000\n")
    assert hardware.free_memory() == 4096000
    paths["_TAKEN"].write_text("3000000\n")
    paths["_TAKEN_FOR"].write_text("anon 2000000\ninactive_file 1000000\n")
    assert hardware.free_memory() == 2096000


@pytest.mark.parametrize("text", ["", "x80", "0x80", "8x0", "8*80", "2x2x2x80", "eighty"])
def test_what_describes_no_machine_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="describes no GPUs"):
        parse(text)


def test_a_rehearsal_suggests_the_tokens_that_fill_nine_tenths_of_the_room() -> None:
    assert Rehearsal("cuda:0", tokens=100, before=400, peak=600, room=1000).budget() == 250
    assert Rehearsal("cpu", tokens=100, before=400, peak=600, room=0).budget() is None


def test_an_activity_lasts_from_the_first_to_the_last_who_takes_part() -> None:
    times: Iterator[float] = iter([1.0, 2.0, 5.0, 7.0, 10.0, 11.0])
    activity = Activity(clock=lambda: next(times))
    with activity:  # 1
        with activity:
            pass
        assert activity.seconds == 1.0  # 2
    # 5
    assert activity.seconds == 4.0
    with activity:  # 7
        assert activity.seconds == 7.0  # 10


def test_shares_are_of_the_time_that_has_passed_since() -> None:
    times = iter([0.0, 2.0])
    activities = Activities(engine=Activity(clock=lambda: next(times)))
    before = activities.seconds()
    with activities.engine:
        pass
    assert activities.shares(before, 4.0) == {"busy/engine": 0.5, "busy/envs": 0.0, "busy/trainer": 0.0}


def test_the_chart_at_the_end_has_a_bar_for_each_and_the_staleness() -> None:
    row = {"time/rollout": 3.0, "time/update": 1.0, "busy/engine": 0.8, "busy/envs": 0.4, "busy/trainer": 0.2}
    longer = {**row, "time/rollout": 11.0, "busy/engine": 0.4, "staleness/mean": 0.5}
    found = busy([{"step": 1.0}, row, longer])
    assert found["engine"] == pytest.approx(0.5)
    assert busy_chart({"busy": found}) == (
        "busy: engine █████░░░░░ 50%  envs ████░░░░░░ 40%  trainer ██░░░░░░░░ 20%  staleness 0.50"
    )
    assert busy_chart({"busy": busy([])}) == ""


def test_how_busy_everything_was_in_an_update_is_a_mark_each() -> None:
    marks = busy_marks({"reward": 1.0, "busy/engine": 0.0, "busy/envs": 0.5, "busy/trainer": 1.01})
    assert marks == {"engine": "▁", "envs": "▅", "trainer": "█"}
    assert busy_marks({"reward": 1.0}) == {}


def test_the_memory_of_this_process_is_measured() -> None:
    found = memory_metrics()
    assert found["memory/process"] > 0.001
    assert found["memory/children"] >= 0
