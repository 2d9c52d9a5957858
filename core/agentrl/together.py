"""Waits for many things at once."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def all_of(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Await all side by side; the first that raises cancels the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as running:
            tasks = [running.create_task(each) for each in coroutines]
    except BaseExceptionGroup as failures:
        first = failures.exceptions[0]
        raise first from first.__cause__
    return [task.result() for task in tasks]


async def in_thread(function: Callable[[], T]) -> T:
    """Run `function` beside the event loop; a cancellation waits until it is done, and is raised after it.

    After it means: where the caller waits for something next. What the function has done is not lost.
    """
    running = asyncio.ensure_future(asyncio.to_thread(function))
    caller, cancelled = asyncio.current_task(), 0
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError:
            cancelled += 1
            if caller is not None:
                caller.uncancel()
    if cancelled and caller is not None:
        caller.cancel()
    return running.result()
