import errno
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentrl import (
    Action,
    AgentRLError,
    Group,
    Observation,
    Outcome,
    Task,
    Trajectory,
    Turn,
    UsageError,
    files,
)
from agentrl.breakdown import TagEffect
from agentrl.config import RunConfig, resolve
from agentrl.evaluation import Evaluation
from agentrl.manifest import used_plugins
from agentrl.plugins import make
from agentrl.records import load_trajectories
from agentrl.rundir import RunDirectory, load_config, load_metrics, load_tasks, log_failure
from agentrl.statistics import Estimate

pytestmark = pytest.mark.usefixtures("toys")
EVALUATION = Evaluation(
    "dev", 5, 5, 0, {"reward": Estimate(0.5, 0.2, 0.8, 5), "odd": Estimate(1 / 3, 0, 1, 5)}
)


def configuration(**said: Any) -> RunConfig:
    return resolve({"env": "toy", **said})


def trajectory(name: str = "t") -> Trajectory:
    return Trajectory(Task(name), turns=[Turn(Observation("look"), Action("go"))], outcome=Outcome(True))


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[RunDirectory]:
    with RunDirectory.open(configuration(), tmp_path / "run") as opened:
        yield opened


def test_a_new_directory_holds_the_configuration_and_reads_back(directory: RunDirectory) -> None:
    assert load_config(directory.path).to_document() == configuration().to_document()


def test_by_default_it_is_named_after_env_algorithm_and_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with RunDirectory.open(configuration()) as one, RunDirectory.open(configuration()) as two:
        assert one.path != two.path
        assert str(one.path).startswith("runs/toy-toy-20")


def test_a_folder_with_something_in_it_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with RunDirectory.open(configuration(), path) as directory:
        directory.write_metrics(1, {"reward": 1.0})
    with pytest.raises(
        UsageError, match=r"holds a run already; go on with --resume .*run, or choose another --out"
    ):
        RunDirectory.open(configuration(), path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.tex").write_text("")
    with pytest.raises(UsageError, match=r"is not empty; choose another --out"):
        RunDirectory.open(configuration(), tmp_path / "other")
    with pytest.raises(UsageError, match=r"is a file"):
        RunDirectory.open(configuration(), tmp_path / "other/thesis.tex")


def test_a_run_that_failed_before_it_did_anything_may_be_started_again(tmp_path: Path) -> None:
    with RunDirectory.open(configuration(steps=1), tmp_path) as directory:
        directory.write_manifest(configuration(), make("env", "toy"), [], "org/model")
    with RunDirectory.open(configuration(steps=2), tmp_path) as directory:
        assert load_config(tmp_path).steps == 2
        assert not (tmp_path / "manifest.json").exists()


def test_a_second_process_in_the_same_directory_is_refused(directory: RunDirectory) -> None:
    code = """
import sys
from pathlib import Path
from agentrl import AgentRLError
from agentrl.config import resolve
from agentrl.rundir import RunDirectory
try:
    RunDirectory.open(resolve({"env": "toy"}), Path(sys.argv[1]), resume=True)
except AgentRLError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(directory.path)], capture_output=True, text=True, check=True
    )
    assert f"another process (id {os.getpid()}) is running in {directory.path}" in done.stdout
    directory.close()
    with RunDirectory.open(configuration(), directory.path, resume=True) as again:
        assert again.resumed


def test_there_must_be_a_run_to_resume(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no run in .*: it has no run.yaml"):
        RunDirectory.open(configuration(), tmp_path, resume=True)


def test_another_configuration_is_not_resumed_but_a_longer_one_is(tmp_path: Path) -> None:
    RunDirectory.open(configuration(steps=3), tmp_path).close()
    with pytest.raises(UsageError, match=r"'seed' was 7 and cannot become 8"):
        RunDirectory.open(configuration(seed=8), tmp_path, resume=True)
    RunDirectory.open(configuration(steps=9), tmp_path, resume=True).close()
    assert load_config(tmp_path).steps == 9


def test_resuming_forgets_what_was_recorded_after_the_checkpoint(tmp_path: Path) -> None:
    with RunDirectory.open(configuration(), tmp_path) as directory:
        directory.write_evaluation(-1, EVALUATION)
        directory.write_evaluation(0, EVALUATION)
        for step in (1, 2, 3):
            directory.write_metrics(step, {"reward": step / 3})
            directory.write_tasks(step, [{"task": "a", "kept": True}, {"task": "b", "kept": False}])
            if step == 2:
                directory.write_checkpoint(step, lambda folder: None)
        directory.write_evaluation(3, EVALUATION)
        for name in ("eval-000000", "step-000002", "step-000003", "eval-000003"):
            directory.write_trajectories(name, [])
        directory.write_summary({})
        (tmp_path / "model").mkdir()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "rew')  # a kill in the middle of a line
    with RunDirectory.open(configuration(), tmp_path, resume=True) as directory:
        assert [row["step"] for row in load_metrics(tmp_path)] == [1, 2]
        assert [row["step"] for row in load_tasks(tmp_path)] == [1, 1, 2, 2]
        assert list(directory.evaluations()) == [-1, 0]
        assert directory.has_evaluation(0)
        assert not directory.has_evaluation(3)
        left = sorted(path.name for path in (tmp_path / "trajectories").iterdir())
        assert left == ["eval-000000.jsonl.gz", "step-000002.jsonl.gz"]
        assert not (tmp_path / "model").exists()
        assert not (tmp_path / "summary.json").exists()
        directory.write_metrics(3, {"reward": 0.0})
    assert [row["step"] for row in load_metrics(tmp_path)] == [1, 2, 3]


def test_without_a_checkpoint_a_resumed_run_begins_anew(tmp_path: Path) -> None:
    with RunDirectory.open(configuration(), tmp_path) as directory:
        directory.write_evaluation(0, EVALUATION)
        directory.write_metrics(1, {})
    with RunDirectory.open(configuration(), tmp_path, resume=True) as directory:
        assert directory.latest_checkpoint() is None
        assert load_metrics(tmp_path) == []
        assert directory.evaluations() == {0: EVALUATION}


def test_numbers_that_are_not_finite_stay_readable_json(directory: RunDirectory) -> None:
    directory.write_metrics(1, {"loss": float("nan"), "reward": 1.0})
    assert json.loads((directory.path / "metrics.jsonl").read_text()) == {
        "step": 1,
        "loss": None,
        "reward": 1.0,
    }


def test_a_damaged_line_in_the_middle_is_not_passed_over(directory: RunDirectory) -> None:
    (directory.path / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(AgentRLError, match=r"metrics.jsonl, line 2: not valid JSON"):
        load_metrics(directory.path)


def test_the_manifest_says_what_the_run_was_made_of(directory: RunDirectory, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").write_bytes(b"abc")
    env = make("env", "toy")
    directory.write_manifest(configuration(), env, list(env.tasks("dev")), model)
    manifest = json.loads((directory.path / "manifest.json").read_text())
    assert manifest["held_out"] == [f"dev-{n}" for n in range(5)]
    assert manifest["splits"] == {"dev": 5, "train": 5}
    assert manifest["data"] == {"doors": "1"}
    assert manifest["seeds"]["run"] == 7
    assert manifest["model"]["files"]["weights"].startswith("ba7816bf")
    toy = {
        "kind": "env",
        "name": "toy",
        "target": "toy_plugins:ToyEnv",
        "distribution": "toy-plugins",
        "version": "1.0",
    }
    assert toy in manifest["plugins"]
    assert any(plugin["kind"] == "hook" for plugin in manifest["plugins"])


def test_the_manifest_names_imitation_if_there_is_a_warm_up() -> None:
    def algorithms(config: RunConfig) -> set[str]:
        return {info.name for info in used_plugins(config) if info.kind == "algorithm"}

    assert algorithms(configuration()) == {"toy"}
    assert algorithms(configuration(warmup=1)) == {"toy", "imitation"}


def test_a_run_is_not_resumed_on_other_data_or_another_model(directory: RunDirectory, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").write_bytes(b"abc")
    env = make("env", "toy")
    directory.write_manifest(configuration(), env, [], model)
    model.rename(tmp_path / "elsewhere")
    directory.write_manifest(configuration(), env, [], tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"the env's data is not what it was .*\(changed: doors\)"):
        directory.write_manifest(
            configuration(), make("env", "toy", {"doors": 2}), [], tmp_path / "elsewhere"
        )
    (tmp_path / "elsewhere/weights").write_bytes(b"abd")
    with pytest.raises(UsageError, match=r"the model is not what it was .*\(changed: weights\)"):
        directory.write_manifest(configuration(), env, [], tmp_path / "elsewhere")


def test_evaluations_come_back_equal_and_older_ones_without_conditions(directory: RunDirectory) -> None:
    all_of_them = TagEffect("all", "slow", Estimate(0.5, 0.2, 0.8, 5), None, 5, 0)
    some = TagEffect("skill=mail", "slow", Estimate(0, 0, 0.8, 5), Estimate(1, 0.2, 1, 5), 2, 3)
    evaluation = replace(EVALUATION, tags=[all_of_them, some])
    directory.write_evaluation(0, evaluation)
    assert directory.evaluations() == {0: evaluation}
    path = directory.path / "evaluations.jsonl"
    row = json.loads(path.read_text())
    del row["tags"]
    path.write_text(json.dumps(row) + "\n")
    assert directory.evaluations() == {0: EVALUATION}


def test_text_that_is_no_unicode_is_stored_all_the_same(directory: RunDirectory) -> None:
    odd = replace(trajectory("\udc80"), turns=[Turn(Observation("\\\ud800 \udfff"), Action("ü"))])
    path = directory.write_trajectories("step-000001", [Group(odd.task, [odd])])
    assert path == directory.path / "trajectories/step-000001.jsonl.gz"
    assert load_trajectories(path) == [odd]
    directory.write_metrics(1, {"env/\ud800": 1.0})
    assert load_metrics(directory.path) == [{"step": 1, "env/\ud800": 1.0}]
    directory.write_summary({"\ud800": 1})
    assert "ud800" in log_failure(directory.path, ValueError("\ud800")).read_text()


def write_much(folder: Path) -> None:
    (folder / "weights").write_text("x" * 10_000)


def test_a_full_disk_is_one_sentence_and_the_old_file_stays(directory: RunDirectory) -> None:
    path = directory.write_trajectories("step-000001", [Group(trajectory().task, [trajectory()])])
    many = [Group(trajectory().task, [replace(trajectory(), seed=n) for n in range(3000)])]
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    try:
        with pytest.raises(AgentRLError, match=r"could not write trajectories to .*File too large") as caught:
            directory.write_trajectories("step-000001", many)
        with pytest.raises(AgentRLError, match=r"could not write metrics to .*File too large"):
            directory.write_metrics(1, {f"m{n}": float(n) for n in range(1000)})
        with pytest.raises(AgentRLError, match=r"could not write the checkpoint"):
            directory.write_checkpoint(1, write_much)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert "\n" not in str(caught.value)
    assert load_trajectories(path) == [trajectory()]
    assert [each.name for each in path.parent.iterdir()] == ["step-000001.jsonl.gz"]
    assert list((directory.path / "checkpoints").iterdir()) == []


def test_no_space_while_syncing_leaves_nothing_behind(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "sync", full)
    with pytest.raises(AgentRLError, match=r"No space left on device \(make room on the disk\)"):
        directory.write_summary({"steps": 1})
    assert list(directory.path.glob("*summary*")) == []


def test_a_folder_that_cannot_be_made_is_one_sentence() -> None:
    with pytest.raises(AgentRLError, match=r"could not write the run directory to /proc/agentrl"):
        RunDirectory.open(configuration(), Path("/proc/agentrl"))


def test_failures_are_logged_with_their_traceback(directory: RunDirectory) -> None:
    try:
        raise KeyError("gone")
    except KeyError as error:
        path = log_failure(directory.path, error)
    assert "Traceback" in path.read_text()
    assert "KeyError: 'gone'" in path.read_text()
