import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import agentrl
from agentrl import AgentRLError, UsageError
from agentrl.cli import main
from agentrl.rundir import RunDirectory
from agentrl.statistics import Estimate

pytestmark = pytest.mark.usefixtures("toys")
COMMAND = [sys.executable, "-m", "agentrl"]


def agentrl_command(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=120, **options
    )


def called(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert called("--version") == 0
    assert capsys.readouterr().out == f"agentrl {agentrl.__version__}\n"
    assert called("--help") == 0
    assert {"run", "eval", "plugins", "doctor"} <= set(capsys.readouterr().out.split())


def test_plugins_are_listed_without_importing_any(install: Any) -> None:
    entry_points = {"agentrl.envs": {"bomb": "bomb_env:Bomb"}, "agentrl.hooks": {"mine": "bomb_env"}}
    install("explosives", entry_points, modules={"bomb_env": "raise SystemExit('imported')"}, version="6.6")
    code = """
import sys
sys.argv = ["agentrl", "plugins"]
from agentrl.cli import main
try:
    main()
except SystemExit as end:
    print(end.code, [name for name in sys.modules if name.startswith(("agentrl_", "torch", "numpy"))])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "bomb" in done.stdout
    assert "explosives" in done.stdout
    assert "6.6" in done.stdout
    assert done.stdout.splitlines()[-1] == "0 []"


def test_a_plugins_options_are_shown_with_type_default_and_description(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert called("plugins", "toy") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "env toy: A world with one door. toy_plugins:ToyEnv, from toy-plugins 1.0" in out
    assert "env.doors integer 1 how many doors there are." in out
    assert 'env.words list[text] ["a", "b"]' in out
    assert "env.colour text | null null of the doors" in out
    assert "rewards.toy.scale number 1.0" in out
    assert called("plugins", "toi") == 2
    assert capsys.readouterr().err == "error: no plugin 'toi'; did you mean 'toy'?\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "error: no env is chosen: name one with --env or in a run file; installed:"),
        (["run", "--env", "tyo"], "error: no env 'tyo'; did you mean 'toy'?"),
        (["run", "--env", "toy", "--algo", "grop"], "error: no algorithm 'grop'; did you mean 'grpo'?"),
        (["run", "--env", "toy", "--set", "env.door=2"], "did you mean 'env.doors'?"),
        (
            ["run", "--env", "toy", "--reward", "toy:much"],
            "error: --reward 'toy:much': the weight 'much' is not a number",
        ),
        (["run", "--env", "toy", "--reward", "tyo"], "error: no reward 'tyo'; did you mean 'toy'?"),
        (["run", "none.yaml"], "error: cannot read the run file none.yaml: No such file or directory"),
        (["run", "--env", "toy", "--resume", "none"], "error: there is no run in none: it has no run.yaml"),
        (
            ["run", "--resume", "none", "--out", "some"],
            "error: --resume goes on with the run as it is: leave --out out",
        ),
        (["run", "--env", "toy", "--steps", "many"], "--steps"),
        (["run", "--env", "toy", "--nonsense"], "--nonsense"),
        (["eval"], "error: no env is chosen"),
        (["eval", "none"], "error: there is no run in none"),
        (["eval", "--env", "toy", "--step", "3"], "error: --step is of a run: name the run directory"),
        (["rum"], "rum"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert called(*arguments) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert "Traceback" not in shown.err + shown.out
    assert list(tmp_path.iterdir()) == []


def test_the_process_itself_exits_with_these_codes(tmp_path: Path) -> None:
    done = agentrl_command("run", "--env", "tyo", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no env 'tyo'; did you mean 'toy'? installed:")
    assert done.stderr.count("\n") == 1
    done = agentrl_command("run", "--env", "tyo", "--debug", cwd=tmp_path)
    assert "Traceback" in done.stderr


class Training:
    """Stands in for `agentrl.run.train`."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error

    def __call__(self, config: Any, folder: Path | None, resume: bool, display: Any) -> dict[str, Any]:
        self.config, self.folder, self.resume = config, folder, resume
        with RunDirectory.open(config, folder, resume=resume) as directory:
            display.started("the configuration", directory.path)
            directory.write_metrics(1, {})
            if self.error:
                raise self.error
        return {}


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> Training:
    import agentrl.run

    fake = Training()
    monkeypatch.setattr(agentrl.run, "train", fake)
    # The handler for SIGTERM would outlive the test.
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    return fake


def test_run_passes_on_what_was_said(training: Training, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("env: {name: toy, doors: 4}\nsteps: 5\ngroup_size: 2\n")
    out = tmp_path / "out"
    flags = ["--steps", "6", "--reward", "extra:0.5", "--reward", "toy", "--seed", "3", "--warmup", "2"]
    assert (
        called(
            "run",
            str(recipe),
            *flags,
            "--set",
            "group_size=3",
            "--set",
            "trainer.rate=1e-3",
            "--out",
            str(out),
        )
        == 0
    )
    config = training.config
    assert (config.steps, config.seed, config.warmup, config.group_size) == (6, 3, 2, 3)
    assert {name: reward.weight for name, reward in config.rewards.items()} == {"extra": 0.5, "toy": 1.0}
    assert config.env.options["doors"] == 4
    assert config.trainer.options == {"rate": 1e-3}
    assert (training.folder, training.resume) == (out, False)


def test_a_resumed_run_reads_its_configuration(training: Training, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    assert called("run", "--env", "toy", "--set", "env.doors=2", "--out", out) == 0
    assert called("run", "--resume", out, "--steps", "400") == 0
    assert (training.folder, training.resume) == (Path(out), True)
    assert (training.config.steps, training.config.env.options["doors"]) == (400, 2)
    assert called("run", "--resume", out, "--set", "env.doors=3") == 2


def test_a_second_run_in_the_same_directory_is_refused(
    training: Training, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called("run", "--env", "toy", "--out", str(tmp_path / "out")) == 0
    assert called("run", "--env", "toy", "--out", str(tmp_path / "out")) == 2
    assert f"go on with --resume {tmp_path / 'out'}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (AgentRLError("the engine is out of order"), 1, "error: the engine is out of order\n"),
        (UsageError("too long"), 2, "error: too long\n"),
        (KeyError("x"), 1, "error: KeyError: 'x' (the traceback is in {out}/run.log)\n"),
        (KeyboardInterrupt(), 130, "stopped; go on with: agentrl run --resume {out}\n"),
    ],
)
def test_failures_end_with_a_sentence_a_code_and_a_log(
    error: BaseException,
    code: int,
    message: str,
    training: Training,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    training.error = error
    out = tmp_path / "out"
    assert called("run", "--env", "toy", "--out", str(out)) == code
    assert capsys.readouterr().err == message.format(out=out)
    assert (out / "run.log").exists() == isinstance(error, Exception)


def test_debug_shows_the_traceback(
    training: Training, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training.error = KeyError("x")
    assert called("run", "--env", "toy", "--out", str(tmp_path / "out"), "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_eval_measures_a_runs_model(
    training: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import agentrl.run
    from agentrl.breakdown import TagEffect
    from agentrl.evaluation import Evaluation

    seen: list[Any] = []

    def measure(config: Any, model: Path | None, display: Any) -> Evaluation:
        seen[:] = [config, model]
        half = Estimate(0.5, 0.25, 0.75, 5)
        return Evaluation("test", 5, 10, 1, {"success": half}, [TagEffect("all", "slow", half, None, 9, 0)])

    monkeypatch.setattr(agentrl.run, "evaluate", measure)
    out = tmp_path / "out"
    assert called("run", "--env", "toy", "--out", str(out)) == 0
    assert called("eval", str(out)) == 2
    assert (
        f"finish it with agentrl run --resume {out}, or choose a checkpoint with --step"
        in capsys.readouterr().err
    )
    (out / "model").mkdir()
    result = tmp_path / "result.json"
    flags = [
        "--split",
        "test",
        "--tasks",
        "5",
        "--repeats",
        "2",
        "--temperature",
        "0.5",
        "--out",
        str(result),
    ]
    assert called("eval", str(out), *flags) == 0
    settings = seen[0].evaluation
    assert (settings.split, settings.tasks, settings.repeats, settings.temperature) == ("test", 5, 2, 0.5)
    assert seen[1] == out / "model"
    shown = " ".join(capsys.readouterr().out.split())
    assert "5 tasks of test, 10 episodes, 1 of them failed and left out" in shown
    assert "success 0.500 0.250 to 0.750" in shown
    assert "conditions that episodes were played under, the most harmful first" in shown
    assert "all slow 0.500 [0.250, 0.750] - 9 and 0" in shown
    found = json.loads(result.read_text())
    assert found["metrics"]["success"]["mean"] == 0.5
    assert found["tags"][0]["present"]["mean"] == 0.5
    assert called("eval", str(out), "--step", "7") == 2
    assert "no complete checkpoint of step 7" in capsys.readouterr().err
    assert called("eval", "--env", "toy", "--model", "org/model") == 0
    assert (seen[0].model.name, seen[1]) == ("org/model", None)


def test_a_hook_plugin_may_add_a_command(install: Any) -> None:
    module = """
from agentrl import UsageError, hookimpl
@hookimpl
def register_commands(app):
    @app.command()
    def greet(name: str) -> None:
        if name == "nobody":
            raise UsageError("there is nobody to greet")
        print(f"hello {name}")
"""
    install(
        "greeter",
        {"agentrl.hooks": {"greeter": "greeter_hook", "bad": "bad_hook"}},
        modules={"greeter_hook": module, "bad_hook": "1/0"},
    )
    done = agentrl_command("greet", "Ada")
    assert done.stdout == "hello Ada\n"
    cause = "ZeroDivisionError: division by zero"
    assert done.stderr == f"warning: the hook 'bad' of greeter 1.0 could not be imported: {cause}\n"
    done = agentrl_command("greet", "nobody")
    assert done.returncode == 2
    assert done.stderr.endswith("error: there is nobody to greet\n")
    assert "greet" in agentrl_command("--help").stdout


def test_terminate_stops_like_control_c(tmp_path: Path) -> None:
    code = """
import sys, time, agentrl.run
def train(config, folder, resume, display):
    display.started("", folder)
    print("ready", flush=True)
    time.sleep(60)
agentrl.run.train = train
from agentrl.cli import main
main(["run", "--env", "toy", "--out", sys.argv[1]])
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line == "ready\n":
            break
    os.kill(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == f"stopped; go on with: agentrl run --resume {tmp_path}\n"


def test_warnings_and_notes_of_the_platform_reach_the_user(
    training: Training, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import logging

    class Talking(KeyError):
        def __str__(self) -> str:
            logging.getLogger("agentrl_something").info("curves are off")
            logging.getLogger("elsewhere").info("not shown")
            logging.getLogger("elsewhere").warning("careful")
            return "x"

    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    try:
        training.error = Talking()
        called("run", "--env", "toy", "--out", str(tmp_path / "out"))
    finally:
        root.handlers[:], level = before
        root.setLevel(level)
    err = capsys.readouterr().err
    assert "note: curves are off\n" in err
    assert "warning: careful\n" in err
    assert "not shown" not in err
