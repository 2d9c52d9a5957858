"""Weights that come while vLLM, in this process, works on requests."""

import asyncio
import threading
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from agentrl_vllm.backend import Backend
from agentrl_vllm.links import ThreadLink
from agentrl_vllm.messages import Load, Message


@dataclass(frozen=True)
class Meeting:
    """Weights that meet requests in work, whatever the clock says: when it is `reached` they are due."""

    reached: threading.Event = field(default_factory=threading.Event)
    sent: threading.Event = field(default_factory=threading.Event)

    async def at(self, event: threading.Event) -> None:
        """Wait for `reached`, or until the weights are `sent`."""
        assert await asyncio.to_thread(event.wait, 60)


def weights_come_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> Meeting:
    """Let vLLM wait for new weights after so many steps."""
    meeting, counted = Meeting(), count()
    step, post = Backend.step, ThreadLink.post

    def count_step(self: Backend) -> Any:
        if next(counted) == steps:
            meeting.reached.set()
            meeting.sent.wait(60)
        return step(self)

    def note_load(self: ThreadLink, message: Message) -> None:
        post(self, message)
        if isinstance(message, Load):
            meeting.sent.set()

    monkeypatch.setattr(Backend, "step", count_step)
    monkeypatch.setattr(ThreadLink, "post", note_load)
    return meeting
