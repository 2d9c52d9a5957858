"""The other side of an env that plays in another virtual environment: standard library only.

Runs on any Python from 3.9 on, without agentrl. It imports the plugin's worker module, has it `preload`, and
then forks one process for each episode, which plays in a session of its own; so an episode starts at once,
clean, and is killed with all it has started. `zygote` and `episode` are who it talks to: JSON messages, each
behind its length (the format of `agentrl.hosting.frames`), over socket pairs that nobody else can reach.

Orders come over standard input: first what to preload, then `{"fork": number}` with two files, the episode's
socket and its error output, and `{"kill": number}`. Answers are `{"ready": pid}` or `{"failed": error}`,
`{"forked": number, "pid"}` and `{"ended": number, "status", "overdue"}`. It ends, and ends all episodes, when
its input closes.
"""

import ctypes
import faulthandler
import gc
import importlib.util
import json
import os
import random
import resource
import select
import signal
import socket
import struct
import sys
import time
import traceback
from contextlib import suppress
from types import ModuleType
from typing import Any, Dict, List, Optional, Set, Tuple  # noqa: UP035 - valid on Python 3.9

Message = Dict[str, Any]  # noqa: UP006

_HEADER = struct.Struct(">I")
_LIMIT_BYTES = 256 * 1024 * 1024
_FINISH_SECONDS = 2.0
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_OBSERVATION: Message = {"done": False, "state_key": None, "action_key": None}
_OUTCOME: Message = {
    "answer": None,
    "references": (),
    "passed": (),
    "failed": (),
    "metrics": {},
    "tags": (),
}

# Kept from plugins that freeze the clock, and from code that patches what ends a process.
_now = time.monotonic
_exit = os._exit
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Preload, then serve until the input closes."""
    from enclosure import Enclosure  # type: ignore[import-not-found]  # beside this file

    del sys.path[0]  # this file's folder, whose modules are none of the plugin's business
    faulthandler.enable()
    control = _take_input()
    order = receive(control)
    if order is None:
        return
    _die_with(os.getppid(), signal.SIGKILL)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        module = load(order["worker"])
        if hasattr(module, "preload"):
            module.preload(order["config"])
    except BaseException as error:
        send(control, {"failed": describe("usage", error)})
        raise
    gc.collect()
    gc.freeze()
    enclosure = Enclosure(order["enclosure"]) if order["enclosure"] else None
    Zygote(control, module, order, enclosure).serve()


def load(path: str) -> ModuleType:
    """Import the file at `path`; it finds the modules in its folder behind all others."""
    sys.path.append(os.path.dirname(path))
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Zygote:
    """Forks episodes, reaps them, and kills what they leave behind. Runs no code of the plugin."""

    def __init__(self, control: socket.socket, module: ModuleType, order: Message, enclosure: Any) -> None:
        """Take where orders come from, the preloaded module, the limits, and who encloses episodes."""
        self.control = control
        self.module = module
        self.order = order
        self.numbers: Dict[int, int] = {}  # noqa: UP006 - by process
        self.deadlines: Dict[int, float] = {}  # noqa: UP006 - by process
        self.overdue: Set[int] = set()  # noqa: UP006
        self.enclosure = enclosure
        self.session = os.getsid(0)
        self.preloaded = set(_children())
        self.awake, self.alarm = os.pipe()
        self.leaving = False

    def serve(self) -> None:
        """Do as ordered until the orders end."""
        for end in (self.awake, self.alarm):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self.alarm, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.signal(signal.SIGTERM, self._leave)
        _die_with(os.getppid(), signal.SIGTERM)
        send(self.control, {"ready": os.getpid()})
        try:
            while not self.leaving and self._turn():
                pass
        finally:
            self._finish()

    def _leave(self, number: int, frame: Any) -> None:
        self.leaving = True  # an exception might come in the middle of clearing up

    def _finish(self) -> None:
        """Kill every episode and what it has started."""
        for pid in self.numbers:
            _kill(pid)
        self.numbers.clear()
        end = _now() + _FINISH_SECONDS
        while _children() - self.preloaded and _now() < end:
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            self._sweep()
            select.select([], [], [], 0.01)

    def _turn(self) -> bool:
        watched: List[Any] = [self.control, self.awake]  # noqa: UP006
        ready, _, _ = select.select(watched, [], [], self._patience())
        if self.awake in ready:
            os.read(self.awake, 4096)
        if self.control in ready and not self._obey():
            return False
        for pid, deadline in list(self.deadlines.items()):
            if _now() >= deadline:
                self.overdue.add(pid)
                _kill(pid)
        self._reap()
        self._sweep()
        return True

    def _patience(self) -> Optional[float]:  # noqa: UP045
        # A while longer than the nearest deadline, so that it has passed.
        return max(0.0, min(self.deadlines.values()) - _now()) + 0.01 if self.deadlines else None

    def _obey(self) -> bool:
        order, files = receive_with_files(self.control)
        if order is None:
            return False
        if "fork" in order:
            self._fork(order["fork"], *files)
        for pid, number in self.numbers.items():
            if number == order.get("kill"):
                _kill(pid)
        return True

    def _fork(self, number: int, channel: int, errors: int) -> None:
        parent = os.getpid()
        sys.stdout.flush()
        try:
            pid = self.enclosure.fork() if self.enclosure else os.fork()
        except OSError as error:
            self._stillborn(number, channel, errors, error)
            return
        if pid == 0:
            try:
                self._become(parent, channel, errors)
                Episode(self.module, self.order["config"], socket.socket(fileno=channel)).serve()
            except BaseException:
                traceback.print_exc()
            finally:
                _exit(1)
        os.close(channel)
        os.close(errors)
        self.numbers[pid] = number
        if self.order["episode_seconds"] is not None:
            self.deadlines[pid] = _now() + self.order["episode_seconds"]
        send(self.control, {"forked": number, "pid": pid})

    def _stillborn(self, number: int, channel: int, errors: int, error: OSError) -> None:
        """Tell why there is no process; the other episodes go on."""
        with suppress(OSError):
            os.write(errors, ("no process could be made for the episode: %s\n" % error).encode())  # noqa: UP031
        os.close(channel)
        os.close(errors)
        send(self.control, {"ended": number, "status": 1 << 8, "overdue": False})

    def _become(self, parent: int, channel: int, errors: int) -> None:
        """Make this new process an episode's: nothing but the preloaded modules is shared with others."""
        os.setsid()
        # The parent of the first process in a namespace has no number there.
        _die_with(0 if self.enclosure else parent, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        self.control.close()
        for file in (self.awake, self.alarm):
            os.close(file)
        os.dup2(errors, 1)
        os.dup2(errors, 2)
        os.close(errors)
        os.set_inheritable(channel, False)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if self.order["memory_mb"] is not None:
            limit = self.order["memory_mb"] * 1024 * 1024
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        if self.enclosure:
            self.enclosure.enter()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            number = self.numbers.pop(pid, None)
            self.deadlines.pop(pid, None)
            if number is not None:
                _kill_group(pid)  # what the episode has left in its session's first group
                ended = {"ended": number, "status": status, "overdue": pid in self.overdue}
                self.overdue.discard(pid)
                send(self.control, ended)

    def _sweep(self) -> None:
        """Kill what an episode has started in another session, once it comes to us as an orphan."""
        orphans = _children() - self.preloaded - set(self.numbers)
        for pid in orphans:
            session = _session(pid)
            if session not in self.numbers and session not in (self.session, None):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


class Episode:
    """Plays one episode as requests say."""

    def __init__(self, module: ModuleType, config: Message, channel: socket.socket) -> None:
        """Take the plugin's worker module and where requests come from."""
        self.module: Any = module
        self.config = config
        self.channel = channel
        # A forked child that outlives us must neither answer in our place nor keep the parent waiting.
        os.register_at_fork(after_in_child=channel.close)

    def serve(self) -> None:
        """Answer requests; at their end, close the world and end this process."""
        code = 0
        try:
            while True:
                request = receive(self.channel)
                if request is None:
                    break
                send_reply(self.channel, self.answer(request), request["operation"])
            self._close()
        except SystemExit as error:
            print("SystemExit:", error, file=sys.stderr)
            code = error.code if isinstance(error.code, int) else 1
        except BaseException:
            traceback.print_exc()
            code = 1
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        _exit(code & 255)

    def answer(self, request: Message) -> Message:
        """Return the reply to a request, whatever the world does."""
        try:
            return {"id": request["id"], "result": self._perform(request["operation"], request["arguments"])}
        except Exception as error:
            return {"id": request["id"], "error": describe("raised", error)}

    def _perform(self, operation: str, arguments: Message) -> Any:
        if operation == "reset":
            random.seed(arguments["seed"])
            task, seed = arguments["task"], arguments["seed"]
            return fill(self.module.reset(task, seed, self.config), _OBSERVATION, "text")
        if operation == "step":
            return fill(self.module.step(arguments["action"]), _OBSERVATION, "text")
        if operation == "judge":
            return fill(self.module.judge(*arguments.get("evidence", ())), _OUTCOME, "success")
        return self._close()

    def _close(self) -> None:
        close = getattr(self.module, "close", None)
        if close is not None:
            self.module.close = None
            close()


def fill(value: Any, defaults: Message, first: str) -> Any:
    """Return what a world said as a complete object: fields that it left out have their defaults."""
    if isinstance(value, dict):
        return {**defaults, **value}
    return {**defaults, first: value} if isinstance(value, (str, bool)) else value


def describe(kind: str, error: BaseException) -> Message:
    """Return an error as it goes over the pipe."""
    message = type(error).__name__ + ": " + str(error)
    steps = traceback.extract_tb(error.__traceback__)
    if steps:
        last = steps[-1]
        message += " (%s line %s, in %s)" % (os.path.basename(last.filename), last.lineno, last.name)  # noqa: UP031
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return {"kind": kind, "message": message, "traceback": text[-8000:]}


# How messages are sent and received


def pack(message: Message) -> bytes:
    """Return the bytes of a message, length first."""
    body = json.dumps(message, allow_nan=False).encode("ascii")
    if len(body) > _LIMIT_BYTES:
        raise ValueError("a message of %d bytes; the limit is %d" % (len(body), _LIMIT_BYTES))  # noqa: UP031
    return _HEADER.pack(len(body)) + body


def send(channel: socket.socket, message: Message) -> None:
    """Send a message."""
    channel.sendall(pack(message))


def send_reply(channel: socket.socket, reply: Message, operation: str) -> None:
    """Send a reply, or what keeps it from being one."""
    try:
        packed = pack(reply)
    except (TypeError, ValueError) as error:
        message = operation + " of the worker returned what is not JSON-safe: " + str(error)
        packed = pack({"id": reply["id"], "error": {"kind": "nonsense", "message": message, "traceback": ""}})
    channel.sendall(packed)


def receive(channel: socket.socket) -> Optional[Message]:  # noqa: UP045
    """Return the next message, or None at the end."""
    return receive_with_files(channel)[0]


def receive_with_files(channel: socket.socket) -> Tuple[Optional[Message], List[int]]:  # noqa: UP006, UP045
    """Return the next message, or None at the end, and the files that came with it."""
    header, files, _, _ = socket.recv_fds(channel, _HEADER.size, 2)
    rest = _receive_bytes(channel, _HEADER.size - len(header)) if header else None
    if rest is None:
        return None, files
    body = _receive_bytes(channel, _HEADER.unpack(header + rest)[0])
    return (None if body is None else json.loads(body)), files


def _receive_bytes(channel: socket.socket, count: int) -> Optional[bytes]:  # noqa: UP045
    received = bytearray()
    while len(received) < count:
        piece = channel.recv(min(count - len(received), 1 << 20))
        if not piece:
            return None
        received += piece
    return bytes(received)


# Processes


def _take_input() -> socket.socket:
    """Return where orders come from, and leave standard input empty for what the plugin starts."""
    control = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return control


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        _libc.prctl(option, value, 0, 0, 0)


def _die_with(parent: int, number: int) -> None:
    """Have the kernel end this process with its parent, which may have ended already."""
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        _exit(1)


def _kill(pid: int) -> None:
    """Kill an episode that was not yet reaped, with its group, if it already leads one."""
    _kill_group(pid)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _children() -> Set[int]:  # noqa: UP006
    """Return our child processes; none where the system does not tell."""
    found: Set[int] = set()  # noqa: UP006
    with suppress(OSError):
        for thread in os.listdir("/proc/self/task"):
            with open("/proc/self/task/" + thread + "/children") as file:
                found.update(map(int, file.read().split()))
    return found


def _session(pid: int) -> Optional[int]:  # noqa: UP045
    """Return the session of a process, None if it has ended."""
    try:
        return os.getsid(pid)
    except OSError:
        return None


if __name__ == "__main__":
    main()
