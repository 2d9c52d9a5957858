"""What a judge has said: the same evidence is not judged twice."""

import asyncio
import hashlib
import json
import zlib
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakValueDictionary

# Beyond so many, the oldest is forgotten.
REMEMBERED = 10_000


class Judgements:
    """Remembers judgements by their evidence."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        # Compressed: there is one for each episode, and verdicts say the same things over and over.
        self._said: dict[bytes, bytes] = {}
        self._asking: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()

    async def of(self, evidence: Any, judge: Callable[[], Awaitable[Any]]) -> Any:
        """Return what `judge` says of `evidence`, JSON-safe both; it is asked if it has not been before.

        Whoever brings the same evidence meanwhile waits. What failed or was cancelled is not remembered.
        """
        key = hashlib.sha256(json.dumps(evidence, sort_keys=True).encode()).digest()
        asking = self._asking.setdefault(key, asyncio.Lock())
        async with asking:
            if key not in self._said:
                self._said[key] = zlib.compress(json.dumps(await judge()).encode())
                while len(self._said) > REMEMBERED:
                    del self._said[next(iter(self._said))]
            return json.loads(zlib.decompress(self._said[key]))
