"""The process at the other end of the pipes: hosts one env and plays it as it is told.

Started by `worker_env` and by nobody else. It ends, and ends all it has started, when its parent does: the
request pipe closes, and on Linux the kernel sends a signal as well.
"""

import asyncio
import atexit
import ctypes
import faulthandler
import importlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

from agentrl.errors import PluginError, UsageError
from agentrl.hosting import codec, frames
from agentrl.interfaces import Env
from agentrl.options import check_options
from agentrl.plugins import make

# How long an env may take to close once the parent is gone, in seconds.
_GRACE_SECONDS = 5.0
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve requests until the parent closes the pipe."""
    # Registered first, so that it runs last: after the exit handlers of whatever the env imports.
    leaving = threading.Event()
    atexit.register(lambda: _kill_group() if leaving.is_set() else None)
    faulthandler.enable()
    requests, replies = _take_over_pipes()
    signal.signal(signal.SIGTERM, lambda number, frame: _kill_group())
    _die_with_parent()
    asyncio.run(_serve(requests, replies, leaving))


def make_env(name: str, options: Mapping[str, Any]) -> Env:
    """Return the env of an entry point's name, or of "module:Class".

    Raises:
        PluginError: there is no such env, or it cannot be imported or made.
        UsageError: an option is unknown or of the wrong type.
    """
    if ":" not in name:
        return make("env", name, options)
    module, _, path = name.partition(":")
    try:
        env: Any = importlib.import_module(module)
        for attribute in path.split("."):
            env = getattr(env, attribute)
    except (ImportError, AttributeError) as error:
        raise PluginError(f"the env {name!r} could not be imported: {error}") from error
    if not (isinstance(env, type) and issubclass(env, Env)):
        raise PluginError(f"{name!r} is not a subclass of agentrl.Env")
    return env(check_options(env.Config, options, f"env {name!r}", "env"))


@dataclass(slots=True)
class Host:
    """Plays one env as requests say."""

    env: Env | None = None
    name: str = "?"
    busy: bool = False

    async def answer(self, request: frames.Message) -> frames.Message:
        """Return the reply to a request, whatever the env does."""
        reply: frames.Message = {"id": request["id"]}
        try:
            reply["result"] = await self._perform(request["operation"], request["arguments"])
        except UsageError as error:
            reply["error"] = _describe("raised" if self.env else "usage", str(error), error)
        except codec.Nonsense as error:
            reply["error"] = _describe("nonsense", str(error), None)
        except Exception as error:  # the env is somebody else's code
            reply["error"] = _describe("raised", f"{type(error).__name__}: {error}{_place(error)}", error)
        return reply

    async def answer_packed(self, request: frames.Message) -> bytes:
        """Return the reply to a request as it goes over the pipe."""
        reply = await self.answer(request)
        try:
            return frames.pack(reply)
        except ValueError as error:
            message = f"{request['operation']} of env {self.name!r} returned {error}"
            return frames.pack({"id": request["id"], "error": _describe("nonsense", message, None)})

    async def _perform(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        if operation == "start":
            return self._start(arguments["env"], arguments["options"], arguments["python_path"])
        if self.env is None:
            raise UsageError(f"the worker was asked to {operation} before it had an env")
        origin = f"{operation} of env {self.name!r}"
        match operation:
            case "reset":
                answer: object = await self.env.reset(
                    codec.task_from_json(arguments["task"]), arguments["seed"]
                )
                return codec.observation_to_json(codec.check_observation(answer, origin))
            case "step":
                answer = await self.env.step(codec.action_from_json(arguments["action"]))
                return codec.observation_to_json(codec.check_observation(answer, origin))
            case "judge":
                return codec.outcome_to_json(codec.check_outcome(await self.env.judge(), origin))
            case "close":
                await self.env.close()
                return None
        raise UsageError(f"the worker knows no operation {operation!r}")

    def _start(self, name: str, options: Mapping[str, Any], python_path: str | None) -> None:
        # What the parent set for us is not meant for programs that the env starts.
        os.environ.pop("PYTHONPATH", None)
        if python_path is not None:
            os.environ["PYTHONPATH"] = python_path
        self.name = name
        self.env = make_env(name, options)


async def _serve(requests: BinaryIO, replies: BinaryIO, leaving: threading.Event) -> None:
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[frames.Message | None] = asyncio.Queue()
    host = Host()

    def deliver(request: frames.Message | None) -> None:
        with suppress(RuntimeError):  # the loop has ended already
            loop.call_soon_threadsafe(waiting.put_nowait, request)

    listen = threading.Thread(target=_listen, args=(requests, deliver, host, leaving), daemon=True)
    listen.start()
    while (request := await waiting.get()) is not None:
        host.busy = True
        replies.write(await host.answer_packed(request))
        replies.flush()
        host.busy = False
    if host.env is not None:
        await host.env.close()


def _listen(
    requests: BinaryIO, deliver: Callable[[frames.Message | None], None], host: Host, leaving: threading.Event
) -> None:
    """Deliver requests; at their end, see to it that this process ends. Works while the env blocks."""
    while (request := frames.read(requests)) is not None:
        deliver(request)
    if not host.busy:
        leaving.set()
        deliver(None)
        time.sleep(_GRACE_SECONDS)
    _kill_group()


def _take_over_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Return the protocol's pipes; what the env prints goes to stderr, and its input is empty."""
    requests, replies = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    # A forked child that outlives us must not keep the parent waiting for a reply.
    ours = [requests, replies]
    os.register_at_fork(after_in_child=lambda: _close_all(ours))
    return os.fdopen(requests, "rb"), os.fdopen(replies, "wb")


def _close_all(pipes: list[int]) -> None:
    """Close and forget: a forked child's own children may have other files under these numbers."""
    while pipes:
        os.close(pipes.pop())


def _die_with_parent() -> None:
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _kill_group() -> None:
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _describe(kind: str, message: str, error: BaseException | None) -> dict[str, str]:
    text = "".join(traceback.format_exception(error)) if error else ""
    return {"kind": kind, "message": message, "traceback": text[-8000:]}


def _place(error: BaseException) -> str:
    """Return where in the env's code an exception was raised."""
    steps = traceback.extract_tb(error.__traceback__)
    if not steps:
        return ""
    last = steps[-1]
    return f" ({os.path.basename(last.filename)} line {last.lineno}, in {last.name})"


if __name__ == "__main__":
    main()
