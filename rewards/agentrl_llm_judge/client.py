"""Asks the endpoint: so many requests at once, each again after a while if it failed for a passing reason."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

import aiohttp

from agentrl.errors import Unjudged, UsageError
from agentrl_llm_judge.cache import Reply

# Answers that say that the request itself is fine.
_PASSING = frozenset({408, 409, 425, 429})
# Answers that will be the same for every request.
_LASTING = {
    401: "refuses the key: set the environment variable that rewards.llm_judge.key_variable names",
    403: "refuses the key: set the environment variable that rewards.llm_judge.key_variable names",
    404: "knows no such model, or serves no /chat/completions: look at rewards.llm_judge.endpoint and model",
}
# Seconds that a pause lasts at most, whatever the endpoint asks for.
_LONGEST_PAUSE = 60.0


class _Passing(Exception):
    """A request failed for a reason that may pass; `pause` is how many seconds the endpoint asks for."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


@dataclass(frozen=True, slots=True)
class Limits:
    """How often and how many at once; seconds for one answer, and of the first pause."""

    attempts: int
    concurrency: int
    timeout: float
    pause: float


class Client:
    """Speaks with one endpoint, on the loop on which it was made."""

    def __init__(self, endpoint: str, key: str | None, limits: Limits) -> None:
        """Take where to ask, the API key, and how."""
        self._endpoint = endpoint.rstrip("/")
        self._limits = limits
        self._slots = asyncio.Semaphore(limits.concurrency)
        # Pauses differ, so that requests that failed together do not come again together.
        self._random = Random()
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=aiohttp.ClientTimeout(total=limits.timeout),
            connector=aiohttp.TCPConnector(limit=limits.concurrency),
            trust_env=True,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def check(self) -> None:
        """See that somebody answers.

        Raises:
            UsageError: nobody does, or the key is refused.
        """
        url = f"{self._endpoint}/models"
        try:
            async with self._session.get(url) as response:
                status = response.status
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UsageError(
                f"no endpoint answers at {self._endpoint} ({_cause(error)}); start one there, or set "
                "rewards.llm_judge.endpoint"
            ) from error
        if status in (401, 403):
            raise UsageError(f"the endpoint {self._endpoint} {_LASTING[status]}")

    async def ask(self, body: Mapping[str, Any]) -> Reply:
        """Return what the model says.

        Raises:
            UsageError: the endpoint will answer no request: key, model or address are wrong.
            Unjudged: it has not answered this one.
        """
        for attempt in range(self._limits.attempts):
            try:
                async with self._slots:
                    return await self._try(body)
            except _Passing as failure:
                last = failure
            if attempt + 1 < self._limits.attempts:
                await asyncio.sleep(self._pause(attempt, last.pause))
        times = f"{self._limits.attempts} attempts" if self._limits.attempts > 1 else "one attempt"
        raise Unjudged(f"the endpoint {self._endpoint} gave no answer in {times}; the last time: {last}")

    def _pause(self, attempt: int, wanted: float) -> float:
        """Return how long to wait: twice as long each time, at least what the endpoint wants."""
        usual: float = self._limits.pause * 2.0**attempt * self._random.uniform(0.5, 1.5)
        return min(max(usual, wanted), _LONGEST_PAUSE)

    async def _try(self, body: Mapping[str, Any]) -> Reply:
        try:
            async with self._session.post(f"{self._endpoint}/chat/completions", json=body) as response:
                text = await response.text(errors="replace")
                if response.status != 200:
                    raise self._refused(response, text)
                return _read(text)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _Passing(_cause(error)) from error

    def _refused(self, response: aiohttp.ClientResponse, text: str) -> Exception:
        status, said = response.status, " ".join(text.split())[:200]
        if status in _LASTING:
            return UsageError(f"the endpoint {self._endpoint} {_LASTING[status]} (HTTP {status}: {said})")
        if status in _PASSING or status >= 500:
            return _Passing(f"HTTP {status}: {said}", _seconds(response.headers.get("Retry-After", "")))
        return Unjudged(f"the endpoint {self._endpoint} refuses the request (HTTP {status}: {said})")


def _read(text: str) -> Reply:
    """Return the reply in the body of an answer."""
    try:
        body = json.loads(text)
        return Reply(str(body["choices"][0]["message"]["content"] or ""), str(body.get("model", "")))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _Passing(f"the answer is no chat completion: {' '.join(text.split())[:200]!r}") from error


def _seconds(header: str) -> float:
    """Return the seconds in a Retry-After header; 0 where it is none, or a date."""
    try:
        return max(0.0, float(header))
    except ValueError:
        return 0.0


def _cause(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "it took too long"
    return str(error) or type(error).__name__
