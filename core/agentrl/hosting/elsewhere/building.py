"""Builds a plugin's other virtual environment: once, step by step, going on where it was interrupted."""

import fcntl
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import IO

from agentrl.errors import AgentRLError
from agentrl.files import write_json, writing
from agentrl.hosting.elsewhere.site import NOTE, REQUIREMENTS, VENV, Site, size_of

# Told the step's number, how many there are, its title, and the last line of its output.
Report = Callable[[int, int, str, str], None]
_LAST_LINES = 12


def _silent(number: int, total: int, title: str, line: str) -> None:
    """Tell nobody."""


def set_up(
    site: Site,
    *,
    options: Mapping[str, str] = MappingProxyType({}),
    force: bool = False,
    wait: bool = False,
    report: Report = _silent,
) -> None:
    """Build the environment, or what is missing of it, and then do what is asked for by options.

    Args:
        site: where it is, and what it is made of.
        options: of the env's own steps, such as `{"--data": ""}`, with their values.
        force: begin anew.
        wait: for another process that is at work on it; what that has done is not done again.
        report: is told of every step and every line of its output.

    Raises:
        AgentRLError: a step failed, another process is at work, or the disk is full; the message says where
            the log is and how it ends.
    """
    with _locked(site, wait=wait) as lock:
        if force or not site.python.exists():
            _forget(site)
        write_json(site.folder / NOTE, site.note, "whose environment it is")
        titles = [*site.titles, *(site.options[option].title for option in options)]
        for number, title in enumerate(site.titles):
            if site.done[: number + 1] == titles[: number + 1]:
                continue
            tell = partial(report, number + 1, len(titles))
            tell(title, "")
            if title == REQUIREMENTS:
                _renew_interrupted(site, tell, lock)
            _build(site, number, tell, lock)
            write_json(site.folder / "done.json", titles[: number + 1], "what is set up")
        for number, (option, value) in enumerate(options.items(), start=len(site.titles)):
            tell = partial(report, number + 1, len(titles))
            tell(titles[number], "")
            _do_as_asked(site, option, value, tell, lock)


def remove(site: Site) -> int:
    """Delete an environment and return how many bytes it held, 0 if it was not there.

    Raises:
        AgentRLError: it is being set up, or cannot be deleted.
    """
    if not site.folder.exists():
        return 0
    with _locked(site), writing(site.folder, "the removal"):
        size = size_of(site)
        shutil.rmtree(site.folder)
    return size


def _forget(site: Site) -> None:
    """Delete what is there, but not the lock, which is ours."""
    for path in site.folder.iterdir():
        if path != _lock_of(site):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _renew_interrupted(site: Site, tell: Callable[[str, str], None], lock: int) -> None:
    """Make the virtual environment again if pip was interrupted in it: nobody knows what it has left."""
    mark = site.folder / "installing"
    if mark.exists():
        tell(f"{VENV} again, for pip was interrupted", "")
        _build(site, 0, tell, lock)
    mark.touch()


def _command(site: Site, number: int) -> list[str]:
    """Return what a step runs."""
    if number == 0:
        return [str(site.base), "-m", "venv", "--clear", str(site.folder / "venv")]
    if number == 1:
        wanted = site.environment.requirements
        pip = [str(site.python), "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
        return [*pip, *map(site.fill, wanted)] if wanted else [str(site.python), "--version"]
    return [str(site.python), *map(site.fill, site.steps[number - 2].arguments)]


def _build(site: Site, number: int, tell: Callable[[str, str], None], lock: int) -> None:
    """Do a step that the environment cannot do without."""
    title = site.titles[number]
    code, lines = _run(site, title, _command(site, number), partial(tell, title), lock)
    if code:
        raise AgentRLError(
            f"the environment of the env {site.name!r} could not be set up: the step {title!r} failed with "
            f"exit code {code}; once its cause is gone, `agentrl env setup {site.name}` goes on from there; "
            f"the log is {site.log}, and ends with:\n" + "\n".join(lines)
        )


def _do_as_asked(site: Site, option: str, value: str, tell: Callable[[str, str], None], lock: int) -> None:
    """Do a step that was asked for; if it fails, the env can be played without it."""
    step = site.options[option]
    arguments = [site.fill(argument).replace("{value}", value) for argument in step.arguments]
    code, lines = _run(site, step.title, [str(site.python), *arguments], partial(tell, step.title), lock)
    if code:
        last = lines[-1] if lines else "it said nothing"
        raise AgentRLError(
            f"the step {step.title!r} failed with exit code {code}: {last}; "
            f"the env {site.name!r} can be played without it; the log is {site.log}"
        )
    if step.title not in site.done:
        write_json(site.folder / "done.json", [*site.done, step.title], "what is set up")


def _run(
    site: Site, title: str, command: Sequence[str], tell: Callable[[str], None], lock: int
) -> tuple[int, list[str]]:
    """Run a step, with its output in the log; return its exit code and its last lines."""
    with writing(site.log, "the log"):
        site.files.mkdir(parents=True, exist_ok=True)
        log = site.log.open("a", encoding="utf-8")
    with log:
        print(f"# {title}: {' '.join(command)}", file=log, flush=True)
        try:
            return _output(command, site, log, tell, lock)
        except OSError as error:
            return 127, [str(error)]


def _output(
    command: Sequence[str], site: Site, log: IO[str], tell: Callable[[str], None], lock: int
) -> tuple[int, list[str]]:
    """Run a command; return its exit code and its last lines. If we are interrupted, it ends, too.

    It inherits the lock: if we are killed, nobody else begins before it has ended.
    """
    last: list[str] = []
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", env=_variables(site), cwd=site.files,
        start_new_session=True, pass_fds=[lock],
    ) as process:  # fmt: skip
        try:
            for line in process.stdout or ():
                log.write(line)
                log.flush()
                last = [*last, line.rstrip()][-_LAST_LINES:]
                if shown := _clean(line):
                    tell(shown)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, last


def _variables(site: Site) -> Mapping[str, str]:
    return {**site.variables(), "PYTHONUNBUFFERED": "1", "PIP_PROGRESS_BAR": "off"}


def _clean(line: str) -> str:
    return re.sub(r"[^\x20-\x7e]+", " ", line).strip()


@contextmanager
def _locked(site: Site, *, wait: bool = False) -> Iterator[int]:
    """Keep other set-ups out; the block gets the lock's file.

    Raises:
        AgentRLError: one is at work, and is not waited for.
    """
    with writing(site.folder, "the environment"):
        site.folder.mkdir(parents=True, exist_ok=True)
        file = _lock_of(site).open("a+", encoding="utf-8")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            file.seek(0)
            raise AgentRLError(
                f"the environment of the env {site.name!r} is being set up by process {file.read() or '?'}; "
                "wait until it is done"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield file.fileno()


def _lock_of(site: Site) -> Path:
    return site.folder / "lock"
