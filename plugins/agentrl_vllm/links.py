"""The way to a worker and back: a thread of this process, or a process of its own.

`post` may be called from any thread. Answers come in a thread of the link; after a fatal one, or when the
process has died, the link is of no more use.
"""

import queue
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from agentrl.runtime import Peer
from agentrl_vllm.messages import Answer, Cargo, Close, Message, Setup

# Seconds that a process gets to close by itself.
_PATIENCE = 20.0


class Link(Protocol):
    """What both kinds of way can do."""

    def post(self, message: Message) -> None:
        """Send a message; nothing happens if the worker is gone."""
        ...

    def deliver(self, cargo: Cargo) -> Cargo:
        """Return what to name in a message so that the worker finds these weights, or raise EOFError."""
        ...

    def close(self) -> None:
        """Let the worker give up everything, and wait until it has ended; may be called twice."""
        ...


class Queue:
    """An inbox: what one thread puts in, another takes out."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.messages: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def get(self, *, wait: bool) -> Message | None:
        """Return the next message; None if there is none and it is not to `wait`."""
        try:
            return self.messages.get(block=wait)
        except queue.Empty:
            return None


class ThreadLink:
    """A worker in a thread: quick to start, and tensors reach it as they are."""

    def __init__(self, setup: Setup, tokenizer: Any, answer: Callable[[Answer], None]) -> None:
        """Start the thread."""
        self._inbox = Queue()
        self._thread = threading.Thread(
            target=self._work, args=(setup, tokenizer, answer), name="vllm", daemon=True
        )
        self._thread.start()

    def post(self, message: Message) -> None:
        """Send a message."""
        self._inbox.messages.put(message)

    def deliver(self, cargo: Cargo) -> Cargo:
        """Return the weights."""
        return cargo

    def close(self) -> None:
        """End the thread."""
        self.post(Close())
        self._thread.join()

    def _work(self, setup: Setup, tokenizer: Any, answer: Callable[[Answer], None]) -> None:
        from agentrl_vllm.working import Worker

        Worker(self._inbox, answer, tokenizer).run(setup)


class ProcessLink:
    """A worker in a process of its own, which may die without harm to this one."""

    def __init__(self, setup: Setup, launch: Callable[[], Peer], answer: Callable[[Answer], None]) -> None:
        """Start the process with `launch`."""
        self.peer = launch()
        self._connection = self.peer.connection
        self._posting = threading.Lock()
        self._reader = threading.Thread(target=self._read, args=(answer,), name="vllm answers", daemon=True)
        self._reader.start()
        self._send(setup)

    def post(self, message: Message) -> None:
        """Send a message."""
        self._send(message)

    def deliver(self, cargo: Cargo) -> Cargo:
        """Return where the process finds the files of weights."""
        return cargo if cargo.folder is None else replace(cargo, folder=self.peer.deliver(cargo.folder))

    def close(self) -> None:
        """End the process, by force if it does not by itself."""
        self.post(Close())
        self.peer.end(_PATIENCE)
        self._reader.join()
        self._connection.close()

    def _send(self, thing: Any) -> None:
        with self._posting:
            if self._connection.closed:
                return
            try:
                self._connection.send(thing)
            except OSError:  # it has died, which the reader tells
                return

    def _read(self, answer: Callable[[Answer], None]) -> None:
        while True:
            try:
                told: Answer = self._connection.recv()
            except (EOFError, OSError):
                epitaph = f"the process of the engine 'vllm' {self.peer.epitaph()}"
                answer(Answer(-1, error=epitaph, fatal=True))
                return
            answer(told)
