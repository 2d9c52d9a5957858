"""Keeps what the judge has said on disk: the same request is made once, whoever makes it again.

One small file for each request, under the hash of all that can change the answer: endpoint, model, messages
and sampling. Files are replaced in one go, so that any number of runs may share the folder.
"""

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from agentrl.files import write_json


@dataclass(frozen=True, slots=True)
class Reply:
    """What the judge said; `model` is what the endpoint says answered."""

    text: str
    model: str


def default_folder() -> Path:
    """Return where verdicts are kept unless an option says otherwise."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "agentrl" / "llm_judge"


def key_of(endpoint: str, body: Mapping[str, Any]) -> str:
    """Return the hash of a request."""
    return sha256(json.dumps([endpoint, body], sort_keys=True).encode()).hexdigest()


class Cache:
    """Replies by key, in a folder."""

    def __init__(self, folder: Path) -> None:
        """Take the folder; it is made when something is kept."""
        self._folder = folder

    def get(self, key: str) -> Reply | None:
        """Return the reply that is kept; None if there is none, or its file is damaged."""
        try:
            kept = json.loads(self._path(key).read_text(encoding="utf-8"))
            return Reply(**kept["reply"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    async def put(self, key: str, reply: Reply, endpoint: str, body: Mapping[str, Any]) -> None:
        """Keep a reply, with what was asked, for people."""
        kept = {"reply": asdict(reply), "endpoint": endpoint, "request": body}
        await asyncio.to_thread(write_json, self._path(key), kept, "a verdict")

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"
