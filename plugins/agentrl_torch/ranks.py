"""The ranks of a trainer, as the main process sees them: processes that are all told the same.

Every rank, the first included, is a process of its own. So the main process never waits inside a collective,
which nothing could interrupt: it waits for answers, sees at once when a rank dies, and ends the others. It
keeps no process group either, so an engine in it may have one, and no GPU memory for training.

A rank that fails leaves the others waiting for it, so a failure is the end of all ranks.
"""

import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agentrl.errors import AgentRLError, UsageError
from agentrl.interfaces import Algorithm, Resources
from agentrl.types import Credit, Group, Need, Task, Trajectory
from agentrl_torch import handover
from agentrl_torch.config import TorchConfig
from agentrl_torch.messages import UNREADABLE, Failure, Setup
from agentrl_torch.sharding import Sharding
from agentrl_torch.update import TrieBatch

# Seconds in which the cause of a failure comes to light, which may not be what is heard of first: others
# complain that a rank has hung up before it is known that it was killed.
_HINDSIGHT = 2.0
# Seconds that a rank gets to end by itself.
_PATIENCE = 10.0


class Ranks:
    """Trains in several processes; to be used like a `training.Training`."""

    def __init__(self, config: TorchConfig, sharding: Sharding) -> None:
        """Take the options, and how models lie over ranks."""
        self._config = config
        self._sharding = sharding
        self._crew: list[_Rank] = []
        self._ended: str | None = None

    def start(self, model: Path | str, needs: frozenset[Need], steps: int, resources: Resources) -> None:
        """Start the processes and let them load the models."""
        count = self._config.ranks
        shares = divide(resources, count)
        with tempfile.TemporaryDirectory(prefix="agentrl-ranks-") as folder:
            self._crew = [_Rank(number) for number in range(count)]
            for rank, own in zip(self._crew, shares, strict=True):
                meeting = os.path.join(folder, "meeting")
                setup = Setup(rank.number, count, meeting, own, self._config, self._sharding)
                rank.post(pickle.dumps(("begin", (setup, model, needs, steps))))
            self._bytes: int = self._answers()

    def prepare(self, batch: TrieBatch, needs: frozenset[Need]) -> None:
        """Put into the batch what `needs` asks for."""
        known = self._ask("prepare", _slim(batch), needs)
        batch.logprobs, batch.audit = known.logprobs, known.audit
        batch.reference_logprobs, batch.values = known.reference_logprobs, known.values

    def update(self, batch: TrieBatch, credits: list[list[Credit]], algorithm: Algorithm) -> dict[str, float]:
        """Train on the batch and return metrics."""
        metrics: dict[str, float] = self._ask("update", _slim(batch), credits, algorithm)
        return metrics

    def weights(self) -> Mapping[str, Tensor]:
        """Return the actor's weights, put together from all ranks."""
        with handover.place(self._bytes) as path:
            self._ask("write_weights", path)
            return handover.take(path)

    def save(self, folder: Path) -> None:
        """Write all that `load` needs to go on exactly."""
        self._ask("save", folder)

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote."""
        self._ask("load", folder)

    def save_model(self, folder: Path) -> None:
        """Write the actor as a model directory."""
        self._ask("save_model", folder)

    def close(self) -> None:
        """End the processes; may be called twice."""
        if self._ended is None:
            self._ended = "the trainer was closed"
            for rank in self._crew:
                rank.post(pickle.dumps(("close", ())))
        self._bury(_PATIENCE)

    def _ask(self, name: str, *arguments: Any) -> Any:
        """Let all ranks do the same, and return what the first answers.

        Raises:
            AgentRLError: a rank could not do it, or has died; all are ended then.
        """
        if self._ended is not None:
            raise AgentRLError(self._ended)
        request = _packed(name, arguments)
        for rank in self._crew:
            rank.post(request)
        return self._answers()

    def _answers(self) -> Any:
        try:
            answers = self._collect()
        except BaseException:  # whatever comes later would be an answer to something else
            self._end("the trainer was interrupted")
            raise
        failed = [(rank, answer) for rank, answer in answers.items() if isinstance(answer, Failure)]
        if failed:
            rank, failure = min(failed, key=lambda each: _place_in_chain(each[1]))
            self._end(f"the trainer's rank {rank.number} has failed")
            raise failure.expected or RuntimeError(f"the trainer's rank {rank.number} failed: {failure.text}")
        return answers[self._crew[0]]

    def _collect(self) -> "dict[_Rank, Any]":
        """Wait for all answers, or for as many as come once one has failed."""
        answers: dict[_Rank, Any] = {}
        deadline: float | None = None
        while len(answers) < len(self._crew):
            missing = {rank.connection: rank for rank in self._crew if rank not in answers}
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            for connection in wait(list(missing), left):
                rank = missing[connection]  # type: ignore[index]
                answers[rank] = rank.hear()
                if isinstance(answers[rank], Failure) and deadline is None:
                    deadline = time.monotonic() + _HINDSIGHT
        return answers

    def _end(self, reason: str) -> None:
        self._ended = reason
        self._bury(0.0)

    def _bury(self, patience: float) -> None:
        deadline = time.monotonic() + patience
        for rank in self._crew:
            rank.end(max(0.0, deadline - time.monotonic()))
        self._crew = []


class _Rank:
    """A process that was started, and the pipe to it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.connection, there = Pipe()
        command = [sys.executable, "-m", "agentrl_torch.rank", str(there.fileno())]
        self.process = subprocess.Popen(
            command, pass_fds=[there.fileno()], stdin=subprocess.DEVNULL, env={**os.environ, **_variables()}
        )
        there.close()
        self.post(pickle.dumps(sys.path))

    def post(self, request: bytes) -> None:
        """Send a request; whether the process is still there its answer will show."""
        try:
            self.connection.send_bytes(request)
        except OSError:
            return

    def hear(self) -> Any:
        """Return the answer, or the failure that the process is gone."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            epitaph = self._epitaph()
            return Failure(epitaph, AgentRLError(epitaph), died=True)

    def end(self, patience: float) -> None:
        """Wait for the process to end by itself, and then no longer."""
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.connection.close()

    def _epitaph(self) -> str:
        code = self.process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        whose = f"the process of the trainer's rank {self.number}"
        return f"{whose} {how}; --resume goes on from the last checkpoint"


def divide(resources: Resources, ranks: int) -> list[Resources]:
    """Return what each rank gets: its part of the threads, and a GPU of its own, from the run's device on.

    Raises:
        UsageError: there are fewer GPUs.
    """
    device, threads = torch.device(resources.device), max(1, resources.threads // ranks)
    if device.type == "cpu":
        return [replace(resources, threads=threads)] * ranks
    first, there = device.index or 0, torch.cuda.device_count()
    if first + ranks > there:
        raise UsageError(
            f"trainer.ranks={ranks} needs {ranks} GPUs from {resources.device!r} on, and this machine has "
            f"{there}; lower trainer.ranks"
        )
    return [replace(resources, threads=threads, device=f"cuda:{first + rank}") for rank in range(ranks)]


def _place_in_chain(failure: Failure) -> int:
    """Return a smaller number for what is more likely the cause of others."""
    return 0 if failure.died else 1 if failure.expected else 2


def _packed(name: str, arguments: tuple[Any, ...]) -> bytes:
    """Return a request as it is sent.

    Raises:
        UsageError: something in it, such as the algorithm, cannot be sent.
    """
    try:
        return pickle.dumps((name, arguments), pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(UNREADABLE.format(error)) from error


def _slim(batch: TrieBatch) -> TrieBatch:
    """Return what ranks need of a batch: how many trajectories there are, not what happened in them."""
    groups = [Group(Task(""), [Trajectory(Task("")) for _ in group.trajectories]) for group in batch.groups]
    return replace(batch, groups=groups)


def _variables() -> dict[str, str]:
    """Return environment variables for ranks: those of one machine need no other network than its own."""
    return {"GLOO_SOCKET_IFNAME": "lo"} if os.path.isdir("/sys/class/net/lo") else {}
