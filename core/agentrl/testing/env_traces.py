"""The rules of what an env leaves behind: when it is cancelled, and after many episodes."""

import asyncio
import gc
import os
import threading
import tracemalloc
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from agentrl.interfaces import Env
from agentrl.testing.env_player import NONSENSE, EnvUnderTest
from agentrl.testing.rules import RuleBroken, RuleSkipped, in_time, no_exception
from agentrl.types import Action

# How often the event loop turns before an operation is cancelled: while it begins, and while it is at work.
TURNS = (1, 3, 10)
# How often it is looked, every twentieth of a second, whether what was ended is over.
ENDINGS = 200
# Bytes of Python that an episode may leave. Interpreter and libraries keep half of it in some envs.
MOST_BYTES = 500
# In so many parts of the second half of all episodes it is looked what they leave; the least counts.
PARTS = 4
# What all of the second half may leave.
MOST_THREADS, MOST_FILES = 2, 4


async def lets_itself_be_cancelled(subject: EnvUnderTest) -> None:
    """What is cancelled, as at a time-out, ends at once, closing ends the rest, and other envs play on."""
    async with subject.env() as env:
        task = subject.tasks(env)[0]
        script = await subject.script(env, task)
    before = await subject.play_alone(task, script)
    busy = _at_work()
    for turns in TURNS:
        async with subject.env(apart=True) as env:
            await _cancel(subject, env.reset(task, 11), "reset", turns)
            await _close(subject, env.close, "reset")
        await _is_over(busy, "reset")
        async with subject.env() as env:
            await subject.reset(env, task, 11)
            await _cancel(subject, env.step(Action(script[0])), "step", turns)
            await _close(subject, env.close, "step")
        await _is_over(busy, "step")
    if await subject.play_alone(task, script) != before:
        raise RuleBroken(
            "lets itself be cancelled",
            f"task {task.id!r} went another way after another env was cancelled",
            "hold the state of an episode in the instance, and undo the rest in `finally`",
        )


async def _cancel(subject: EnvUnderTest, operation: Awaitable[Any], what: str, turns: int) -> None:
    """Cancel an operation that has begun, unless it is over by then."""
    running = asyncio.ensure_future(operation)
    for _ in range(turns):
        await asyncio.sleep(0)
    if running.done():
        running.exception()  # other rules look at it
        return
    running.cancel()
    await asyncio.wait({running}, timeout=subject.seconds)
    rule, remedy = "lets itself be cancelled", "let CancelledError through: catch Exception at most"
    if not running.done():
        raise RuleBroken(rule, f"{what} went on for {subject.seconds:g} s after it was cancelled", remedy)
    if not running.cancelled():
        error = running.exception()
        end = f"raised {type(error).__name__}: {error}" if error else "went on to its end"
        raise RuleBroken(rule, f"{what} was cancelled, but {end}", remedy)


async def _close(subject: EnvUnderTest, close: Callable[[], Awaitable[None]], what: str) -> None:
    with no_exception(f"close after a cancelled {what}", "let close work whatever happened before"):
        await in_time(close(), subject.seconds, f"close after a cancelled {what}")


async def _is_over(before: Mapping[str, int], what: str) -> None:
    """Hold an env that was cancelled and closed to it that nothing of it works on."""
    for _ in range(ENDINGS):
        more = {each: count - before[each] for each, count in _at_work().items() if count > before[each]}
        if not more:
            return
        await asyncio.sleep(0.05)
    left = " and ".join(f"{count} of its {each}" for each, count in more.items())
    raise RuleBroken(
        "leaves nothing behind",
        f"after a cancelled {what}, and close, {left} went on",
        "cancel tasks, and kill processes and wait for them, in `finally` or in close",
    )


def _at_work() -> dict[str, int]:
    """Return how much of each sort is at work: tasks of this event loop, processes that were started here."""
    processes = 0
    for listed in Path("/proc/self/task").glob("*/children"):
        with suppress(FileNotFoundError):
            processes += sum(_runs(pid) for pid in listed.read_text().split())
    return {"asyncio tasks": len(asyncio.all_tasks()), "processes": processes}


def _runs(pid: str) -> bool:
    """Return whether a process has not ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@dataclass(frozen=True, slots=True)
class Held:
    """What this process holds."""

    bytes: int
    threads: int
    files: int

    @classmethod
    def now(cls) -> "Held":
        """Count."""
        gc.collect()
        listed = Path("/proc/self/fd")
        files = len(os.listdir(listed)) if listed.is_dir() else 0
        return cls(tracemalloc.get_traced_memory()[0], threading.active_count(), files)


async def leaves_nothing_behind(subject: EnvUnderTest) -> None:
    """Episode after episode, memory, threads and open files stay as they are.

    Memory may grow by 500 bytes an episode, or by more in some quarter of the second half of all episodes,
    but not in each: a cache fills and buffers grow, a leak goes on.
    """
    if not subject.episodes:
        raise RuleSkipped("it takes a while; episodes=200 plays so many")
    # What is kept once, for good reason, is kept in the first half.
    half = subject.episodes // 2
    ends = [half + part * (subject.episodes - half) // PARTS for part in range(PARTS + 1)]
    parts = [range(first, end) for first, end in pairwise(ends) if first < end]
    tracing = tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        async with subject.env() as env:
            await _play(subject, env, range(half))
            held = [Held.now()]
            for part in parts:
                await _play(subject, env, part)
                held.append(Held.now())
        _compare(held, [len(part) for part in parts])
    finally:
        if not tracing:
            tracemalloc.stop()


async def _play(subject: EnvUnderTest, env: Env, episodes: range) -> None:
    tasks = subject.tasks(env)
    for episode in episodes:
        task = tasks[episode % len(tasks)]
        await subject.play(env, task, subject.demonstration(env, task) or NONSENSE, seed=episode)


def _compare(held: Sequence[Held], episodes: Sequence[int]) -> None:
    """Hold what was held before and after so many episodes each to what may be added."""
    before, after = held[0], held[-1]
    bytes_each = min(
        (later.bytes - earlier.bytes) / count
        for (earlier, later), count in zip(pairwise(held), episodes, strict=True)
    )
    grown = {  # what a thread or a file takes of memory says less than that it is there
        f"{after.threads - before.threads} threads": after.threads - before.threads > MOST_THREADS,
        f"{after.files - before.files} open files": after.files - before.files > MOST_FILES,
        f"{bytes_each / 1e3:.1f} kB of memory an episode": bytes_each > MOST_BYTES,
    }
    for what, too_much in grown.items():
        if too_much:
            raise RuleBroken(
                "leaves nothing behind",
                f"{what} were added by the last {sum(episodes)} episodes",
                "let reset give back what the episode before held, and keep no list of what was played",
            )
