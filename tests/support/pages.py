"""An env that plays in whatever page a test gives, and how tests play in it."""

import asyncio
from collections.abc import Sequence

from agentrl import Action, Observation, Outcome, Task
from agentrl_browser import BrowserEnv, Request, Response, Scene

TASK = Task("page")
ROOMS = """<!doctype html><title>Rooms</title><body>
<h1>Book a room</h1>
<label>Title <input id=title></label>
<label>Room <select id=room><option value="">choose</option><option value=o>Oak</option>
<option disabled>Elm</option></select></label>
<button id=go disabled>Book</button>
<p id=said role=status></p>
<a href="/two">Second page</a>
<script>
title.oninput = () => go.disabled = !title.value;
go.addEventListener("click", async () => {
  said.textContent = "saving";
  const answer = await fetch("/book", {method: "POST", body: title.value});
  await new Promise((go_on) => setTimeout(go_on, 300));
  said.textContent = await answer.text() + Date.now() + " " + performance.now() + " " + Math.random();
});
</script>"""


class OnePage(BrowserEnv):
    """Plays in a page that a test gives."""

    html = ROOMS
    remembers = False

    def tasks(self, split: str) -> Sequence[Task]:
        return [TASK]

    def pose(self, task: Task, seed: int) -> Scene:
        self.site = Site(self.html)
        return Scene(self.site, "book a room")

    async def judge(self) -> Outcome:
        return Outcome(self.ending is not None and self.ending.name == "done")


class Site:
    """Answers with a page, and remembers what was booked."""

    origin = "http://rooms.invalid"

    def __init__(self, html: str) -> None:
        self.html, self.booked = html, [""] * 0

    def answer(self, request: Request) -> Response:
        if request.path == "/fail":
            raise RuntimeError("the backend is broken")
        if request.path == "/book":
            self.booked.append(request.body.decode())
            return Response(body=f"booked {request.body.decode()} ", type="text/plain")
        return Response(body=self.html)

    def state_key(self) -> str:
        return repr(self.booked)


def page_env(html: str, **options: object) -> OnePage:
    """Return an env that plays in this page."""
    env = OnePage(OnePage.Config(**options))
    env.html = html
    return env


async def play(env: OnePage, actions: Sequence[str], seed: int = 1) -> list[Observation]:
    """Play an episode, close its env, and return what was seen."""
    try:
        seen = [await env.reset(TASK, seed)]
        for text in actions:
            seen.append(await env.step(Action(text)))
        return seen
    finally:
        await env.close()


def texts(html: str, actions: Sequence[str], **options: object) -> list[str]:
    """Return what is shown at first and after each action."""
    return [each.text for each in asyncio.run(play(page_env(html, **options), actions))]


def error(html: str, action: str) -> str:
    """Return the error that an action leads to, or nothing."""
    first = texts(html, [action])[-1].partition("\n")[0]
    return first.removeprefix("Error: ") if first.startswith("Error: ") else ""


def body(html: str) -> str:
    """Return a page that contains this."""
    return f"<!doctype html><title>T</title><body>{html}</body>"
