"""A server that speaks as OpenAI's API does, well or badly, in a thread of its own."""

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Json = dict[str, Any]


def said(text: str) -> web.Response:
    """Return a chat completion."""
    message = {"role": "assistant", "content": text}
    return web.json_response({"model": "judge-1", "choices": [{"index": 0, "message": message}]})


def right_or_wrong(body: Json) -> web.Response:
    """Judge by whether a right answer is what was answered, word for word."""
    prompt = body["messages"][0]["content"]
    (answer,) = re.findall(r"<answer-\w+>\n(.*?)\n</answer", prompt, re.DOTALL)
    (right,) = re.findall(r"<right-\w+>\n(.*?)\n</right", prompt, re.DOTALL)
    return said(f"It is compared.\nSCORE: {10 if answer in right.splitlines() else 0}")


@dataclass
class JudgeServer:
    """What was asked, and how it is answered; `answer` may be changed at any time."""

    answer: Callable[[Json], web.Response] = right_or_wrong
    seconds: float = 0.0
    requests: list[Json] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    busy: int = 0
    busiest: int = 0
    url: str = ""

    async def complete(self, request: web.Request) -> web.Response:
        self.busy += 1
        self.busiest = max(self.busy, self.busiest)
        try:
            self.keys.append(request.headers.get("Authorization"))
            body = json.loads(await request.read())
            self.requests.append(body)
            await asyncio.sleep(self.seconds)
            return self.answer(body)
        finally:
            self.busy -= 1

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "judge"}]})


@contextmanager
def judge_server() -> Iterator[JudgeServer]:
    """Serve while the block runs."""
    server, loop, ready = JudgeServer(), asyncio.new_event_loop(), threading.Event()

    async def start() -> web.AppRunner:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/v1/chat/completions", server.complete)
        app.router.add_get("/v1/models", server.models)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        return runner

    def serve() -> None:
        asyncio.set_event_loop(loop)
        runner = loop.run_until_complete(start())
        ready.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=serve, name="judge-server")
    thread.start()
    ready.wait(30)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
