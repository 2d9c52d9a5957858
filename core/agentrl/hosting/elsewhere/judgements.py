"""What a judge has said: the same evidence is not judged twice."""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

# Beyond so many, the oldest is forgotten.
REMEMBERED = 10_000


@dataclass
class _Case:
    """One piece of evidence, and what is said of it once somebody has said it."""

    busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    said: Any = None


class Judgements:
    """Remembers judgements by their evidence."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._cases: dict[str, _Case] = {}

    async def of(self, evidence: Any, judge: Callable[[], Awaitable[Any]]) -> Any:
        """Return what `judge` says of `evidence`, JSON-safe both; it is asked if it has not been before.

        Whoever brings the same evidence meanwhile waits. What failed or was cancelled is not remembered.
        """
        text = json.dumps(evidence, sort_keys=True)
        case = self._cases.setdefault(hashlib.sha256(text.encode()).hexdigest(), _Case())
        while len(self._cases) > REMEMBERED:
            del self._cases[next(iter(self._cases))]
        async with case.busy:
            if case.said is None:
                case.said = json.dumps(await judge())
        return json.loads(case.said)
