"""The one who works with vLLM: takes messages, keeps vLLM busy, answers.

It runs in a thread of this process or alone in a process of its own; it does not know which. Requests join
whatever is in work. Before weights are loaded all earlier requests are finished, and later ones wait, so that
every completion is of one version; or, if that is what the set-up says, weights are loaded at once, and the
requests in work go on with them.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from agentrl.errors import AgentRLError, UsageError
from agentrl.interfaces import Tokenizer
from agentrl.stopping import StopRule
from agentrl.types import Completion
from agentrl_vllm.backend import Backend, effective_temperature
from agentrl_vllm.messages import (
    Answer,
    Ask,
    Cancel,
    Close,
    InFlight,
    Load,
    Message,
    Rest,
    Setup,
    Task,
)

_DIVERGED = (
    "the model's logits are not numbers: training has diverged; resume from an earlier checkpoint "
    "with a lower learning rate"
)


class Inbox(Protocol):
    """Where messages come from."""

    def get(self, *, wait: bool) -> Message | None:
        """Return the next message; None if there is none and it is not to `wait`."""
        ...


@dataclass(slots=True)
class _Request:
    """What has been sampled so far, and by which weights: their versions, by the first token of each."""

    asked: Ask
    versions: dict[int, int]
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What vLLM calls it."""
        return str(self.asked.number)

    @property
    def has_diverged(self) -> bool:
        return math.isnan(sum(self.logprobs))

    def completion(self, stop: Literal["stop", "length"]) -> Completion:
        if self.has_diverged:
            raise AgentRLError(_DIVERGED)
        # The likeliest token is drawn from no distribution.
        temperature = effective_temperature(self.asked.sampling) or 1.0
        (_, version), *changes = self.versions.items()
        return Completion(self.token_ids, self.logprobs, stop, version, temperature, tuple(changes))


class Worker:
    """Serves until it is told to close, or vLLM fails."""

    def __init__(self, inbox: Inbox, answer: Callable[[Answer], None], tokenizer: Tokenizer) -> None:
        """Take where messages come from, and to whom to answer."""
        self._inbox = inbox
        self._answer = answer
        self._rule = StopRule(tokenizer, ())  # vLLM itself looks for the ends of turns
        self._line: deque[Task] = deque()
        self._active: dict[str, _Request] = {}
        self._version = 0
        self._in_flight: InFlight = "wait"
        self._closing = self._diverged = self._adapted = False

    def run(self, setup: Setup) -> None:
        """Start vLLM, answer number 0, and serve."""
        self._in_flight = setup.in_flight
        try:
            backend = Backend(setup)
        except Exception as error:  # it is the caller's to handle
            self._answer(Answer(0, error=_sentence(error), fatal=True))
            return
        self._answer(Answer(0))
        try:
            while not self._closing:
                self._read(backend)
                self._begin(backend)
                self._step(backend)
        except Exception as error:  # whatever it is, no caller may be left waiting
            self._answer(Answer(-1, error=_sentence(error), fatal=True))
        finally:
            backend.close()

    def _read(self, backend: Backend) -> None:
        """Take all messages that are there; wait for one if there is nothing else to do."""
        message = self._inbox.get(wait=not self._active and not self._line)
        while message is not None:
            if isinstance(message, Close):
                self._closing = True
            elif isinstance(message, Cancel):
                self._cancel(message.number, backend)
            else:
                self._line.append(message)
            message = None if self._closing else self._inbox.get(wait=False)

    def _cancel(self, number: int, backend: Backend) -> None:
        self._line = deque(task for task in self._line if task.number != number)
        if self._active.pop(str(number), None) is not None:
            backend.abort([str(number)])

    def _begin(self, backend: Backend) -> None:
        """Begin what waits, in its order, up to what needs that nothing is in work."""
        while self._line and not self._closing:
            if self._active and not self._joins(self._line[0]):
                return
            task = self._line.popleft()
            if isinstance(task, Ask):
                self._ask(task, backend)
            else:
                self._do(task, backend)
                self._answer(Answer(task.number))

    def _joins(self, task: Task) -> bool:
        """Return whether it can be done while there are requests in work."""
        if isinstance(task, Load):
            # A request goes on with an adapter to its end, or without.
            return self._in_flight != "wait" and (task.cargo.adapter is not None) == self._adapted
        return isinstance(task, Ask)

    def _ask(self, task: Ask, backend: Backend) -> None:
        try:
            backend.add(str(task.number), task.token_ids, task.sampling)
        except ValueError as error:  # vLLM does not take this one
            self._answer(Answer(task.number, error=_sentence(error)))
        else:
            request = _Request(task, {0: self._version})
            self._active[request.name] = request

    def _do(self, task: Load | Rest, backend: Backend) -> None:
        if isinstance(task, Load):
            self._load(task, backend)
        else:
            backend.rest(asleep=task.asleep)

    def _load(self, task: Load, backend: Backend) -> None:
        """Load the weights, and note from which token on they sample, where all before it is read again."""
        requests = list(self._active.values())
        diverged = self._diverged or any(request.has_diverged for request in requests)
        backend.load(task.cargo)
        self._adapted = task.cargo.adapter is not None
        self._version, self._diverged = task.cargo.version, False
        if diverged:
            backend.scrub()
        if self._in_flight == "keep":
            self._begin_again([request for request in requests if not request.token_ids], backend)
        for request in requests:
            if diverged or self._in_flight == "recompute" or not request.token_ids:
                request.versions[len(request.token_ids)] = self._version

    def _begin_again(self, requests: list[_Request], backend: Backend) -> None:
        """Have vLLM forget what it has read of these requests, for that was with the old weights."""
        backend.abort([request.name for request in requests])
        for request in requests:
            backend.add(request.name, request.asked.token_ids, request.asked.sampling)

    def _step(self, backend: Backend) -> None:
        if not self._active or self._closing:
            return
        for name, token_ids, logprobs, finish in backend.step():
            request = self._active.get(name)
            if request is None:  # it was stopped, and vLLM has not heard of it yet
                continue
            stopped = self._extend(request, token_ids, logprobs)
            if stopped and finish is None:
                backend.abort([name])
            if stopped or finish is not None:
                del self._active[name]
                self._finish(request, "stop" if stopped or finish == "stop" else "length")

    def _extend(self, request: _Request, token_ids: Sequence[int], logprobs: Sequence[float]) -> bool:
        """Note new tokens up to one that completes a stop string, and return whether there was one."""
        for token_id, logprob in zip(token_ids, logprobs, strict=True):
            request.token_ids.append(token_id)
            request.logprobs.append(logprob)
            if self._rule.applies(request.token_ids, request.asked.sampling.stop):
                return True
        return False

    def _finish(self, request: _Request, stop: Literal["stop", "length"]) -> None:
        try:
            answer = Answer(request.asked.number, request.completion(stop))
        except AgentRLError as error:
            self._diverged = True
            answer = Answer(request.asked.number, error=str(error))
        self._answer(answer)


def _sentence(error: Exception) -> str:
    if isinstance(error, UsageError | AgentRLError):
        return str(error)
    lines = str(error).strip().splitlines() or [""]
    return f"vLLM failed with {type(error).__name__}: {lines[0]}".rstrip(": ")
