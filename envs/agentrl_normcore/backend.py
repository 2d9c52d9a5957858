"""The backend of an episode: serves the page, lets the gym answer, and brings faults upon answers.

It is a `Site` of the browser layer: requests of the page are answered in this process, without a server.
"""

import json
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from agentrl_browser import Request, Response

from .conditions import Conditions, Weather
from .gym import Gym, Problem, Refusal
from .ledger import Ledger

ORIGIN = "http://gym.invalid"
API = "/api/"
REFUSED = "the server was busy, and nothing was done. Try again."
LOST = "no answer came. Press Refresh to see what was saved."


class Backend:
    """One gym, one problem, one database."""

    origin = ORIGIN

    def __init__(self, gym: Gym, problem: Problem, conditions: Conditions) -> None:
        """Make the database."""
        self._gym, self._problem, self._conditions = gym, problem, conditions
        self._weather = Weather(conditions)
        self.ledger = Ledger(gym.schema(), problem.rows)

    @property
    def script(self) -> str:
        """Return what must run in the page before its own scripts."""
        shown, conditions = _json(self._problem.shown), _json(self._conditions.for_page())
        return _gym_js().replace("__SHOWN__", shown).replace("__CONDITIONS__", conditions)

    def answer(self, request: Request) -> Response:
        """Answer a request of the page."""
        if request.path == "/":
            return Response(200, self._gym.page())
        if not request.path.startswith(API):
            return Response(404, type="text/plain")
        return self._serve(request.path.removeprefix(API), request.body)

    def _serve(self, path: str, body: bytes) -> Response:
        delay, fault = self._weather.next(path, writes=bool(body))
        if fault == "refused":
            return _respond(503, {"error": REFUSED}, delay)
        try:
            data = _data(body)
            with self.ledger.transaction() as database:
                answer = self._gym.answer(path, data, database, self._problem)
        except Refusal as error:
            return _respond(error.status, {"error": str(error)}, delay)
        return _respond(504, {"error": LOST}, delay) if fault == "lost" else _respond(200, answer, delay)

    def state_key(self) -> str:
        """Return what tells apart the states in which the database and the weather can be."""
        changes = [[change.op, change.table, change.old, change.new] for change in self.ledger.changes()]
        text = json.dumps([changes, self._weather.state()], sort_keys=True)
        return sha256(text.encode()).hexdigest()

    def close(self) -> None:
        """Forget the database."""
        self.ledger.close()


def _data(body: bytes) -> Mapping[str, Any]:
    data = json.loads(body) if body else {}
    if not isinstance(data, dict):
        raise Refusal("that is no form")
    return data


def _respond(status: int, answer: Mapping[str, Any], delay: int) -> Response:
    # The page waits by its own clock: how long an answer really takes is unknown to virtual time.
    return Response(status, _json(answer), "application/json", delay_ms=delay)


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True)


@cache
def _gym_js() -> str:
    return files(__package__).joinpath("gym.js").read_text(encoding="utf-8")
