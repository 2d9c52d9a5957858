"""Speaks the DevTools protocol with a browser over one socket, as JSON messages that end in a zero byte.

A call waits for its answer; what the browser tells unasked goes to listeners. Once the browser is gone,
every call that waits and every later one raises `BrowserGone` with its cause, so that nobody waits for the
dead.
"""

import asyncio
import itertools
import json
import socket
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agentrl.errors import AgentRLError

Listener = Callable[[dict[str, Any]], None]
CALL_SECONDS = 60.0


class BrowserGone(AgentRLError):
    """The browser died, or was closed; what was open in it is lost."""


class ProtocolError(Exception):
    """The browser refused a call."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    method: str
    session: str | None
    answer: "asyncio.Future[dict[str, Any]]"


class Connection(asyncio.Protocol):
    """Calls and listeners, by session; session None is the browser itself."""

    def __init__(self, cause: Callable[[], str]) -> None:
        """Take what tells the cause, in words, once the browser is gone."""
        self._cause = cause
        self._transport: asyncio.WriteTransport | None = None
        self._rest = bytearray()
        self._ids = itertools.count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._listeners: dict[tuple[str | None, str], list[Listener]] = defaultdict(list)
        self._expected: dict[tuple[str | None, str], list[int]] = defaultdict(list)
        self.gone: str | None = None

    @classmethod
    async def over(cls, end: socket.socket, cause: Callable[[], str]) -> "Connection":
        """Return the connection over `end`, a connected socket."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: cls(cause), sock=end)
        return connection

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take bytes: any number of messages, the last perhaps in part."""
        self._rest += data
        if 0 in data:
            *messages, self._rest = self._rest.split(b"\0")
            for message in messages:
                self._take(json.loads(message))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell all who wait that the browser is gone."""
        if self.gone is None:
            self.gone = self._cause()
        for number, each in [*self._waiting.items()]:
            self._fail(number, f"the browser is gone ({self.gone}), during {each.method}")
        self._listeners.clear()

    # What others call

    @property
    def alive(self) -> bool:
        """Return whether the browser is still there."""
        return self.gone is None

    async def call(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        session: str | None = None,
        seconds: float | None = None,
    ) -> dict[str, Any]:
        """Return the answer to a call, which is waited for for `seconds`, by default `CALL_SECONDS`.

        Raises:
            BrowserGone: the browser is dead, dies meanwhile, or does not answer a call of no session.
            ProtocolError: it refuses, or a page does not answer.
        """
        seconds = CALL_SECONDS if seconds is None else seconds
        answer = self.send(method, params, session)
        try:
            # Python 3.11's `wait_for` swallows a cancellation that comes together with the answer.
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError as error:
            said = f"the browser did not answer {method} within {seconds:g} s"
            if session is not None:
                raise ProtocolError(said) from error
            self._give_up(said)
            raise BrowserGone(said) from error

    def _give_up(self, why: str) -> None:
        """Take a browser that hangs for dead, so that whoever needs one starts another."""
        if self.gone is None:
            self.gone = why
        if self._transport is not None:
            self._transport.abort()

    def send(
        self, method: str, params: dict[str, Any] | None = None, session: str | None = None
    ) -> "asyncio.Future[dict[str, Any]]":
        """Send a call now, and return its answer to come; answers come in the order of calls."""
        if self.gone is not None or self._transport is None:
            raise BrowserGone(f"the browser is gone ({self.gone}), before {method}")
        number = next(self._ids)
        message: dict[str, Any] = {"id": number, "method": method, "params": params or {}}
        if session is not None:
            message["sessionId"] = session
        answer = self._wait(number, method, session)
        self._transport.write(json.dumps(message).encode() + b"\0")
        return answer

    def expect(self, method: str, session: str | None = None) -> "asyncio.Future[dict[str, Any]]":
        """Return the parameters to come of the next event `method` of a session."""
        number = -next(self._ids)
        self._expected[session, method].append(number)
        answer = self._wait(number, method, session)
        answer.add_done_callback(lambda _: self._waiting.pop(number, None))
        return answer

    def on(self, method: str, listener: Listener, session: str | None = None) -> None:
        """Call `listener` with the parameters of every event `method` of a session."""
        self._listeners[session, method].append(listener)

    def end(self, session: str, why: str) -> None:
        """Drop all listeners of a session, and tell `why` to all who wait in it."""
        for number, each in [*self._waiting.items()]:
            if each.session == session:
                self._fail(number, f"{why}, during {each.method}")
        for table in (self._listeners, self._expected):
            for key in [key for key in table if key[0] == session]:
                table.pop(key)

    def close(self) -> None:
        """Hang up. Whatever waits is told that the browser was closed."""
        if self.gone is None:
            self.gone = "it was closed"
        if self._transport is not None:
            self._transport.close()

    def _wait(self, number: int, method: str, session: str | None) -> "asyncio.Future[dict[str, Any]]":
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = _Waiting(method, session, answer)
        answer.add_done_callback(_look_at)
        return answer

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            self._settle(message["id"], message)
            return
        key = (message.get("sessionId"), message["method"])
        for number in self._expected.pop(key, ()):
            self._settle(number, {"result": message["params"]})
        for listener in (*self._listeners.get(key, ()),):
            listener(message["params"])

    def _settle(self, number: int, message: dict[str, Any]) -> None:
        waiting = self._waiting.pop(number, None)
        if waiting is None or waiting.answer.done():
            return
        if "error" in message:
            said = f"{waiting.method}: {message['error'].get('message')}"
            waiting.answer.set_exception(ProtocolError(said))
        else:
            waiting.answer.set_result(message.get("result", {}))

    def _fail(self, number: int, why: str) -> None:
        waiting = self._waiting.pop(number)
        if not waiting.answer.done():
            waiting.answer.set_exception(BrowserGone(why))


def _look_at(answer: "asyncio.Future[dict[str, Any]]") -> None:
    """Take note of a failure, so that asyncio does not complain where nobody waits for the answer."""
    if not answer.cancelled():
        answer.exception()
