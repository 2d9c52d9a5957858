"""How a worker and its parent talk: JSON messages, each behind its length, over two pipes.

Standard library only and valid on Python 3.9. A worker in another virtual environment (`elsewhere.worker`)
speaks the same. A request is `{"id", "operation", "arguments"}`; its reply is `{"id", "result"}` or
`{"id", "error"}`, an error being `{"kind", "message", "traceback"}`. One request is under way at a time.
"""

import json
import struct
from typing import Any, BinaryIO, Dict, Optional  # noqa: UP035 - valid on Python 3.9

_HEADER = struct.Struct(">I")
HEADER_BYTES = _HEADER.size
LIMIT_BYTES = 256 * 1024 * 1024

Message = Dict[str, Any]  # noqa: UP006


def pack(message: Message) -> bytes:
    """Return the bytes of a message, length first.

    Raises:
        TypeError, ValueError: the message is not JSON-safe, or longer than `LIMIT_BYTES`.
    """
    body = json.dumps(message, allow_nan=False).encode("ascii")
    if len(body) > LIMIT_BYTES:
        raise ValueError(f"a message of {len(body)} bytes; the limit is {LIMIT_BYTES}")
    return _HEADER.pack(len(body)) + body


def body_length(header: bytes) -> int:
    """Return how many bytes follow `header`.

    Raises:
        ValueError: this is no header of a message.
    """
    length: int = _HEADER.unpack(header)[0]
    if length > LIMIT_BYTES:
        raise ValueError(f"a message of {length} bytes is announced; the limit is {LIMIT_BYTES}")
    return length


def unpack(body: bytes) -> Message:
    """Return the message in `body`.

    Raises:
        ValueError: this is no message.
    """
    try:
        message = json.loads(body)
    except RecursionError as error:
        raise ValueError("a message is nested too deeply") from error
    if not isinstance(message, dict):
        raise ValueError("a message is a JSON object, not a " + type(message).__name__)
    return message


def read(stream: BinaryIO) -> Optional[Message]:  # noqa: UP045
    """Return the next message, or None at the end of the stream."""
    header = stream.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        return None
    length = body_length(header)
    body = stream.read(length)
    return unpack(body) if len(body) == length else None
