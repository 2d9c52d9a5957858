"""Where the pages of MiniWoB++ are, and the site that serves them to a browser."""

from functools import cache, lru_cache
from importlib.util import find_spec
from mimetypes import guess_type
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote

from agentrl import UsageError
from agentrl_browser import Request, Response

MISSING = "the pages of MiniWoB++ are missing; install them with: pip install 'miniwob>=1.1,<2'"


@cache
def folder() -> Path:
    """Return the folder that holds all pages, and what they need.

    Raises:
        UsageError: the package `miniwob` is not installed.
    """
    found = find_spec("miniwob")
    if found is None or found.origin is None:
        raise UsageError(MISSING)
    return Path(found.origin).parent / "html"


@cache
def names() -> tuple[str, ...]:
    """Return the names of all pages, in order."""
    return tuple(sorted(path.stem for path in (folder() / "miniwob").glob("*.html")))


# No file changes while a run goes on, so a page that is played in again may keep the scripts that it has.
KEPT = {"cache-control": "max-age=31536000"}


@lru_cache(maxsize=1024)
def _file(path: str) -> Response:
    """Return a file of the folder."""
    place = (folder() / unquote(path).lstrip("/")).resolve()
    if not place.is_relative_to(folder().resolve()) or not place.is_file():
        return Response(404, "no such file", "text/plain")
    kind = guess_type(place.name)[0] or "application/octet-stream"
    shown = f"{kind}; charset=utf-8" if kind.startswith("text/") else kind
    return Response(200, place.read_bytes(), shown, {} if kind == "text/html" else KEPT)


class Pages:
    """The site of all pages. It keeps nothing, so that episodes share it."""

    origin: ClassVar[str] = "http://miniwob.invalid"

    def answer(self, request: Request) -> Response:
        """Return a file of the folder."""
        return _file(request.path)

    def state_key(self) -> str:
        """Return nothing: there is no backend."""
        return ""
