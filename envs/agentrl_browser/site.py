"""What a page may reach: one site, answered by this process; everything else is refused.

There is no server. The browser's requests are intercepted before they become any, those of the site's origin
are answered from here, and all others fail and are noted. What interception does not see has no way out
either (see the flags in `chromium`).
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

# The header by which an answer declares how long it takes, in ms; the page's own shim sleeps it, in its time.
DELAY = "x-agentrl-delay"


@dataclass(frozen=True, slots=True)
class Request:
    """What a page asks of its site; of a query's repeated names the last counts."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Response:
    """What the site answers. `delay_ms` is declared in a header, see `DELAY`."""

    status: int = 200
    body: bytes | str = b""
    type: str = "text/html; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_ms: int = 0


class Site(Protocol):
    """A web application without a server."""

    @property
    def origin(self) -> str:
        """Return scheme, host and port, such as http://shop.invalid."""
        ...

    def answer(self, request: Request) -> Response:
        """Answer; an exception means that the env is broken."""
        ...

    def state_key(self) -> str:
        """Return what identifies the state of the site's backend, "" if it has none."""
        ...


def request_of(paused: Mapping[str, Any]) -> Request:
    """Return the request that the browser has paused."""
    request = paused["request"]
    parts = urlsplit(request["url"])
    headers = {name.lower(): value for name, value in request["headers"].items()}
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    return Request(request["method"], parts.path or "/", query, _body(request), headers)


def _body(request: Mapping[str, Any]) -> bytes:
    entries = request.get("postDataEntries", ())
    if entries:
        return b"".join(base64.b64decode(entry.get("bytes", "")) for entry in entries)
    return str(request.get("postData", "")).encode()


def fulfilment(request_id: str, response: Response) -> dict[str, Any]:
    """Return the parameters of the call that gives `response` to the page."""
    body = response.body.encode() if isinstance(response.body, str) else response.body
    headers = {"content-type": response.type, "cache-control": "no-store", **response.headers}
    if response.delay_ms:
        headers[DELAY] = str(response.delay_ms)
    return {
        "requestId": request_id,
        "responseCode": response.status,
        "responseHeaders": [{"name": name, "value": value} for name, value in headers.items()],
        "body": base64.b64encode(body).decode(),
    }


def origin_of(url: str) -> str:
    """Return scheme, host and port of `url`, as an origin is written."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
