"""The life of browsers: they start, are shared, die and are replaced, and nothing is left of them."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest

from agentrl import Action, UsageError
from agentrl_browser import BrowserGone, find_executable, lease, protocol
from agentrl_browser.chromium import PREFIX, sweep
from agentrl_browser.protocol import ProtocolError
from pages import ROOMS, TASK, Site, body, page_env, texts

pytestmark = pytest.mark.usefixtures("browser")


def children() -> set[int]:
    """Return the processes that descend from this one."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listed.splitlines()]
    found, queue = set[int](), deque([os.getpid()])
    while queue:
        parent = queue.popleft()
        below = {pid for pid, of in pairs if of == parent}
        found |= below
        queue.extend(below)
    return found


def profiles() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob(f"{PREFIX}{os.getpid()}-*"))


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except FileNotFoundError:
        return ""


def the_browser() -> int:
    [main] = [
        pid
        for pid in children()
        if "--remote-debugging-pipe" in _command(pid) and "--type=" not in _command(pid)
    ]
    return main


def test_nothing_is_left_when_the_last_env_is_closed() -> None:
    async def episodes() -> int:
        envs = [page_env(ROOMS) for _ in range(3)]
        await asyncio.gather(*(env.reset(TASK, 1) for env in envs))
        started = len(profiles())
        await envs[0].close()
        await envs[0].close()
        assert (await envs[1].step(Action("noop()"))).text
        await asyncio.gather(*(env.close() for env in envs))
        return started

    assert asyncio.run(episodes()) == 1, "all share one browser"
    assert profiles() == set()
    assert not [pid for pid in children() if "chrom" in _command(pid)]


def test_a_browser_that_is_killed_costs_the_episodes_in_it_and_not_the_next() -> None:
    async def episodes() -> tuple[list[object], str]:
        envs = [page_env(ROOMS) for _ in range(2)]
        await asyncio.gather(*(env.reset(TASK, 1) for env in envs))
        steps = [asyncio.create_task(env.step(Action("noop(1000)"))) for env in envs]
        os.kill(the_browser(), signal.SIGKILL)
        failures = await asyncio.gather(*steps, return_exceptions=True)
        again = await envs[0].reset(TASK, 1)
        for env in envs:
            await env.close()
        return failures, again.text

    failures, again = asyncio.run(episodes())
    assert all(isinstance(failure, BrowserGone) for failure in failures)
    assert "killed by SIGKILL" in str(failures[0])
    assert "[1] textbox 'Title'" in again
    assert profiles() == set()


def test_a_browser_that_hangs_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "CALL_SECONDS", 5.0)

    async def episodes() -> str:
        env = page_env(ROOMS)
        await env.reset(TASK, 1)
        stopped = the_browser()
        os.kill(stopped, signal.SIGSTOP)
        with pytest.raises((BrowserGone, ProtocolError), match="did not answer"):
            await env.step(Action("fill('1', 'x')"))
        again = await env.reset(TASK, 1)
        assert the_browser() != stopped
        await env.close()
        return again.text

    assert "[1] textbox 'Title'" in asyncio.run(episodes())
    assert profiles() == set()


def test_a_page_that_crashes_costs_its_own_episode_only() -> None:
    async def episodes() -> tuple[str, str]:
        envs = [page_env(ROOMS) for _ in range(2)]
        await asyncio.gather(*(env.reset(TASK, 1) for env in envs))
        with pytest.raises(BrowserGone) as raised:
            await envs[0].page.call("Page.crash")
        other = await envs[1].step(Action("fill('1', 'x')"))
        left = await envs[1].page._connection.call("Target.getBrowserContexts")
        assert len(left["browserContextIds"]) == 1
        for env in envs:
            await env.close()
        return str(raised.value), other.text

    said, other = asyncio.run(episodes())
    assert "the page crashed" in said
    assert "value='x'" in other


def test_a_page_is_closed_after_its_time_to_live() -> None:
    async def episode() -> None:
        env = page_env(ROOMS, seconds=2.0)
        try:
            await env.reset(TASK, 1)
            await asyncio.sleep(2.2)
            await env.step(Action("noop()"))
        finally:
            await env.close()

    with pytest.raises(BrowserGone, match=r"closed after 2 s, its time to live"):
        asyncio.run(episode())


def test_a_site_that_fails_makes_the_episode_an_error() -> None:
    html = body("<button onclick=\"fetch('/fail')\">A</button>")
    with pytest.raises(RuntimeError, match="the backend is broken"):
        texts(html, ["click('1')"])


def test_profile_folders_of_the_dead_are_swept_and_those_of_the_living_are_kept(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{dead.pid}-"))
    kept = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getppid()}-"))
    assert left in sweep()
    assert not left.exists()
    assert kept.exists()
    kept.rmdir()


def test_a_browser_ends_with_a_run_that_is_killed() -> None:
    code = """
import asyncio, sys
from agentrl_browser.browser import Browser
from agentrl_browser import find_executable
async def main():
    browser = await Browser.start(find_executable())
    print(browser.chromium.pid, flush=True)
    await asyncio.sleep(100)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        browser = int(run.stdout.readline())
        run.kill()
    assert asyncio.run(_until(lambda: not Path(f"/proc/{browser}").exists() or _is_zombie(browser)))
    sweep()


async def _until(holds: Callable[[], bool]) -> bool:
    for _ in range(600):
        if holds():
            return True
        await asyncio.sleep(0.1)
    return False


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_browser_that_cannot_start_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "browser"
    broken.write_text("#!/bin/sh\necho no such library >&2\nexit 7\n")
    broken.chmod(0o755)

    async def start() -> None:
        leased = lease(str(broken))
        try:
            await leased.open(Site(ROOMS), options=None)  # type: ignore[arg-type]
        finally:
            leased.close()

    with pytest.raises(BrowserGone, match=r"does not run as a browser: .*exit status 7; no such library"):
        asyncio.run(start())
    assert profiles() == set()


def test_a_missing_browser_is_an_error_with_the_command_that_installs_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AGENTRL_BROWSER", raising=False)
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    monkeypatch.setattr("agentrl_browser.chromium.CANDIDATES", ("no-such-browser",))
    with pytest.raises(UsageError, match="apt-get install --no-install-recommends chromium-headless-shell"):
        find_executable()
    with pytest.raises(UsageError, match="no browser at 'no-such'"):
        find_executable("no-such")


def test_screenshots_are_kept_by_task_episode_and_turn(tmp_path: Path) -> None:
    for _ in range(2):
        texts(ROOMS, ["fill('1', 'x')", "noop()"], screenshots=tmp_path)
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*"))
    names = ("000.png", "001.png", "002.png", "actions.json")
    assert found == [f"page/1-{number}/{name}" for number in (0, 1) for name in names]
    assert (tmp_path / "page/1-0/000.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "page/1-0/000.png").read_bytes() != (tmp_path / "page/1-0/001.png").read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_five_hundred_episodes_leave_no_process_folder_or_memory_behind() -> None:
    async def episodes() -> tuple[list[int], list[int], list[int]]:
        envs = [page_env(ROOMS) for _ in range(4)]
        processes, memory, ours = [], [], []
        for _ in range(125):
            for env in envs:
                await env.reset(TASK, 1)
                await env.step(Action("fill('1', 'x')"))
            ids = children()
            processes.append(len(ids))
            memory.append(sum(map(_kilobytes, ids)))
            ours.append(_kilobytes(os.getpid()))
            assert len(profiles()) == 1
        for env in envs:
            await env.close()
        return processes, memory, ours

    processes, memory, ours = asyncio.run(episodes())
    assert max(processes[-20:]) <= max(processes[5:25]) + 1
    assert min(memory[-20:]) < 1.25 * max(memory[5:25])
    assert ours[-1] < 1.1 * ours[10] + 10_000
    assert profiles() == set()


def _kilobytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
