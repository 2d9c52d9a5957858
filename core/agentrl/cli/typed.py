"""Reads actions that a person types, or that come through a pipe.

A line is an action. One that ends with a backslash goes on in the next line; one that opens a block with
``` goes on until the block is closed.
"""

import asyncio
import os
from collections.abc import Callable

FENCE = "```"


class Typed:
    """The actions in a file, which is waited for while the event loop goes on: an env may have to listen."""

    def __init__(self, file: int, prompt: Callable[[str], None]) -> None:
        """Take the file's number, and what asks for a line: told "" where an action only goes on."""
        self._file = file
        self._prompt = prompt
        self._read = b""

    async def action(self, asked: str) -> str | None:
        """Return the next action, None at the end; `asked` is what to ask with."""
        text = await self._line(asked)
        while text is not None and (open_block := _open_block(text), text.endswith("\\")) != (False, False):
            more = await self._line("")
            if more is None:
                break
            text = f"{text if open_block else text[:-1]}\n{more}"
        return text

    async def _line(self, asked: str) -> str | None:
        """Return a line without its end, None at the end of the file."""
        self._prompt(asked)
        while b"\n" not in self._read:
            more = await self._more()
            if not more:
                line, self._read = self._read, b""
                return line.decode(errors="replace") if line else None
            self._read += more
        line, _, self._read = self._read.partition(b"\n")
        return line.removesuffix(b"\r").decode(errors="replace")

    async def _more(self) -> bytes:
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        try:
            loop.add_reader(self._file, ready.set)
        except PermissionError:  # a file on the disk, which nobody has to wait for
            return os.read(self._file, 65536)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._file)
        return os.read(self._file, 65536)


def _open_block(text: str) -> bool:
    return text.count(FENCE) % 2 == 1
