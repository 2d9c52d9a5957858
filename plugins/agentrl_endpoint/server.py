"""The endpoint: one local server for all episodes that are played, and a key for each of them.

It listens on 127.0.0.1 while there is an episode, on the loop on which the episodes are played. It serves
`/v1/chat/completions` and `/v1/models` as OpenAI's API does, and `/v1/step`, by which a command acts.
"""

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from aiohttp import web

from agentrl_endpoint.programs import Access, EpisodeOver, ProgramFailed
from agentrl_endpoint.requests import Refused

if TYPE_CHECKING:
    from agentrl_endpoint.play import Play

MODEL = "agentrl"
# A long dialogue of a long context.
LARGEST_BODY = 64 * 1024 * 1024
# Seconds that connections get when the last episode is over: its requests were cancelled before.
GRACE = 1.0
_servers: "WeakKeyDictionary[asyncio.AbstractEventLoop, Server]" = WeakKeyDictionary()


class Server:
    """Serves the episodes of one loop."""

    @classmethod
    def here(cls) -> "Server":
        """Return the server of the loop that runs now."""
        return _servers.setdefault(asyncio.get_running_loop(), cls())

    def __init__(self) -> None:
        """Listen to nobody yet."""
        self._plays: dict[str, Play] = {}
        self._guests: set[Play] = set()
        self._runner: web.AppRunner | None = None
        self._changing = asyncio.Lock()

    async def enter(self, play: "Play") -> Access:
        """Begin to serve an episode and return where."""
        self._guests.add(play)
        async with self._changing:
            if self._runner is None:
                self._runner = await self._start()
            key = secrets.token_urlsafe(32)
            self._plays[key] = play
            host, port = self._runner.addresses[0][:2]
            return Access(f"http://{host}:{port}/v1", key, MODEL)

    def shut_out(self, play: "Play") -> None:
        """Take an episode's key away."""
        self._plays = {key: each for key, each in self._plays.items() if each is not play}

    async def leave(self, play: "Play") -> None:
        """Stop serving an episode; the last one closes the door."""
        self.shut_out(play)
        self._guests.discard(play)
        async with self._changing:
            if not self._guests and self._runner is not None:
                runner, self._runner = self._runner, None
                await runner.cleanup()

    async def _start(self) -> web.AppRunner:
        app = web.Application(client_max_size=LARGEST_BODY)
        app.router.add_post("/v1/chat/completions", self._answering(self._complete))
        app.router.add_get("/v1/models", self._answering(self._models))
        app.router.add_post("/v1/step", self._answering(self._step))
        app.router.add_route("*", "/{path:.*}", self._answering(self._unknown))
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=GRACE)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
        except BaseException:
            await runner.cleanup()
            raise
        return runner

    def _answering(
        self, answer: "Callable[[web.Request, Play], Awaitable[web.StreamResponse]]"
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Return a handler that finds the episode by its key, and tells what goes wrong as the API does."""

        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                return await answer(request, self._play_of(request))
            except Refused as refused:
                return _error(str(refused), refused.code, refused.status)
            except (EpisodeOver, ProgramFailed) as error:
                return _error(str(error), "episode_over", 410)

        return handle

    def _play_of(self, request: web.Request) -> "Play":
        key = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if key not in self._plays:
            raise Refused("no episode has this API key, or it is over", "invalid_api_key", 401)
        return self._plays[key]

    async def _complete(self, request: web.Request, play: "Play") -> web.StreamResponse:
        answer = await play.complete(await _body(request, play))
        name, created = f"chatcmpl-{secrets.token_hex(12)}", int(time.time())
        if not answer.request.stream:
            return web.json_response(answer.body(name, created))
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        )
        await response.prepare(request)
        for event in answer.stream(name, created):
            await response.write(event.encode())
        await response.write_eof()
        return response

    async def _models(self, request: web.Request, play: "Play") -> web.StreamResponse:
        model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "agentrl"}
        return web.json_response({"object": "list", "data": [model]})

    async def _step(self, request: web.Request, play: "Play") -> web.StreamResponse:
        body = await _body(request, play)
        if not isinstance(body, dict) or not isinstance(body.get("action"), str):
            raise _refused(play, 'a step is {"action": "the text of an action"}')
        return web.json_response({"observation": await play.step(body["action"])})

    async def _unknown(self, request: web.Request, play: "Play") -> web.StreamResponse:
        reason = (
            f"{request.method} {request.path} is not served; there are POST /v1/chat/completions and "
            "GET /v1/models, so let your library use chat completions"
        )
        raise _refused(play, reason, 404)


async def _body(request: web.Request, play: "Play") -> Any:
    try:
        return json.loads(await request.read())
    except ValueError as error:
        raise _refused(play, f"the body of a request has to be JSON: {error}") from error


def _refused(play: "Play", reason: str, status: int = 400) -> Refused:
    play.refuse(reason)
    return Refused(reason, status=status)


def _error(message: str, code: str, status: int) -> web.Response:
    kind = "invalid_request_error"
    return web.json_response(
        {"error": {"message": message, "type": kind, "code": code, "param": None}}, status=status
    )
