import sys
from pathlib import Path

import pytest

from agentrl import doctor
from agentrl.cli import main


def test_a_probe_tells_success_failure_crash_and_hang_apart() -> None:
    def run(code: str, timeout: float = 30.0) -> tuple[str, str | None]:
        return doctor.probe([sys.executable, "-c", code], timeout)

    assert run("print(3)") == ("3\n", None)
    assert (
        run("import nothing_of_the_sort")[1] == "ModuleNotFoundError: No module named 'nothing_of_the_sort'"
    )
    assert run("raise SystemExit(3)")[1] == "exit code 3"
    assert run("import os; os.kill(os.getpid(), 11)")[1] == "killed by signal 11"
    assert run("import time; time.sleep(60)", timeout=0.2)[1] == "no answer in 0 s"
    assert doctor.probe(["/no/such/command"])[1] == "No such file or directory"


def test_a_library_is_usable_missing_or_broken() -> None:
    assert doctor.library("pydantic", "pydantic", "").state == "usable"
    missing = doctor.library("no-such-library", "nothing", "pip install it")
    assert (missing.state, missing.advice) == ("missing", "pip install it")
    broken = doctor.library("pydantic", "pydantic.no_such_part", "pip install it")
    assert (broken.state, broken.advice) == ("broken", "install it again: pip install it")
    assert "No module named 'pydantic.no_such_part'" in broken.detail


def test_the_sandbox_is_looked_for_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    assert "bubblewrap" in doctor.sandbox().advice
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/bin/false")
    assert doctor.sandbox().state == "broken"
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/bin/true")
    assert doctor.sandbox().state == "usable"


def test_the_browser_is_the_one_that_envs_would_take(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AGENTRL_BROWSER", sys.executable)
    assert doctor.browser().state == "usable"
    assert doctor.browser().detail.startswith("Python 3.")
    monkeypatch.setenv("AGENTRL_BROWSER", "/bin/false")
    assert doctor.browser().state == "broken"
    monkeypatch.setenv("AGENTRL_BROWSER", str(tmp_path))
    missing = doctor.browser()
    assert missing.state == "missing"
    assert missing.detail == f"no browser at '{tmp_path}', which $AGENTRL_BROWSER names"
    assert missing.advice == "name an executable, or none to look for one"


def test_without_torch_no_gpu_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    assert doctor.gpu().state == "missing"
    monkeypatch.setattr(doctor, "_version", lambda name: "9.9")
    monkeypatch.setattr(doctor, "probe", lambda command: ('["NVIDIA H100"]\n', None))
    assert (doctor.gpu().state, doctor.gpu().detail) == ("usable", "NVIDIA H100")
    monkeypatch.setattr(doctor, "probe", lambda command: ("[]\n", None))
    assert doctor.gpu().detail == "torch 9.9 sees none"
    monkeypatch.setattr(doctor, "probe", lambda command: ("", "killed by signal 11"))
    assert doctor.gpu().state == "broken"


def test_the_command_shows_every_finding(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "probe", lambda command, timeout=0.0: ("[]\n", None))
    with pytest.raises(SystemExit) as caught:
        main(["doctor"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for part in (
        "torch",
        "GPU",
        "transformers",
        "vllm",
        "deepspeed",
        "ray",
        "bm25s",
        "tensorboard",
        "peft",
        "browser",
        "sandbox",
    ):
        assert part in shown
