"""The ranks of a trainer, as the main process sees them: processes that are all told the same.

Every rank, the first included, is a process of its own. So the main process never waits inside a collective,
which nothing could interrupt: it waits for answers, sees at once when a rank dies, and ends the others. It
keeps no process group either, so an engine in it may have one, and no GPU memory for training.

A rank that fails leaves the others waiting for it, so a failure is the end of all ranks. On which machine a
rank lives, and how it is started, is the runtime's to know.
"""

import pickle
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from agentrl.errors import AgentRLError, UsageError
from agentrl.footprint import Rehearsal
from agentrl.interfaces import Algorithm, Resources
from agentrl.plugins import make
from agentrl.runtime import Peer, Program
from agentrl.types import Credit, Group, Need, Task, Trajectory
from agentrl_torch.config import TorchConfig
from agentrl_torch.fetched import FetchedWeights
from agentrl_torch.messages import UNREADABLE, Failure, Setup
from agentrl_torch.sharding import Sharding
from agentrl_torch.update import TrieBatch

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
        self._asking = threading.Lock()

    def start(self, model: Path | str, needs: frozenset[Need], steps: int, resources: Resources) -> None:
        """Start the processes and let them load the models."""
        self._model = str(model)
        runtime = resources.runtime or make("runtime", "local")
        count = self._config.ranks
        programs = [_program(number, resources.device) for number in range(count)]
        peers = runtime.launch(programs)
        self._crew = [_Rank(number, peer) for number, peer in enumerate(peers)]
        with runtime.meeting(peers) as meeting:
            for rank, program in zip(self._crew, programs, strict=True):
                own = _share(resources, count, program, rank.peer)
                setup = Setup(rank.number, count, meeting, own, self._config, self._sharding)
                rank.post(pickle.dumps(("begin", (setup, _whole(model), needs, steps))))
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

    def rehearse(self, batch: TrieBatch, credits: list[list[Credit]], algorithm: Algorithm) -> Rehearsal:
        """Compute an update and return what the rank took that took most."""
        found: Rehearsal = self._ask("rehearse", _slim(batch), credits, algorithm)
        return found

    def weights(self) -> Mapping[str, Tensor]:
        """Return the actor's weights, put together from all ranks."""
        if self._config.lora.rank is not None:
            return FetchedWeights(self._model, self._fetch)
        return self._fetch("write_weights")[0]

    def _fetch(self, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return the tensors that the first rank writes when all are asked to, and the file's metadata."""
        if self._ended is not None:
            raise AgentRLError(self._ended)
        first = self._crew[0]
        try:
            with (
                first.peer.received(self._bytes, lambda path: self._ask(name, path)) as path,
                safe_open(path, "pt") as file,
            ):
                # Mapped: they stay when the file goes.
                return {key: file.get_tensor(key) for key in file.offset_keys()}, file.metadata() or {}
        except EOFError as error:
            failure = first.failure()
            self._end(f"the trainer's rank {first.number} has failed")
            raise AgentRLError(failure.text) from error

    def save(self, folder: Path) -> None:
        """Write all that `load` needs to go on exactly."""
        self._ask("save", folder.absolute())

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote."""
        self._ask("load", folder.absolute())

    def save_model(self, folder: Path) -> None:
        """Write the actor as a model directory."""
        self._ask("save_model", folder.absolute())

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
            OSError: likewise, in writing a file, and why is the operating system's to say.
        """
        if self._ended is not None:
            raise AgentRLError(self._ended)
        request = _packed(name, arguments)
        # Weights may still be fetched in another thread when a run that was interrupted is saved.
        with self._asking:
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
            unexpected = RuntimeError(f"the trainer's rank {rank.number} failed: {failure.text}")
            if failure.expected is None:
                raise unexpected
            raise failure.expected from unexpected
        return answers[self._crew[0]]

    def _collect(self) -> "dict[_Rank, Any]":
        """Wait for all answers, or for as many as come once one has failed.

        The cause of a failure may not be what is heard of first: others complain that a rank has hung up
        before it is known that it was killed.
        """
        answers: dict[_Rank, Any] = {}
        deadline: float | None = None
        while len(answers) < len(self._crew):
            missing = {rank.peer.connection: rank for rank in self._crew if rank not in answers}
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            for connection in wait(list(missing), left):
                rank = missing[connection]  # type: ignore[index]
                answers[rank] = rank.hear()
                if isinstance(answers[rank], Failure) and deadline is None:
                    deadline = time.monotonic() + rank.peer.hindsight
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
    """A process that was started, and what is said to it."""

    def __init__(self, number: int, peer: Peer) -> None:
        self.number = number
        self.peer = peer
        self.post(pickle.dumps(sys.path))

    def post(self, request: bytes) -> None:
        """Send a request; whether the process is still there its answer will show."""
        try:
            self.peer.connection.send_bytes(request)
        except OSError:
            return

    def hear(self) -> Any:
        """Return the answer, or the failure that the process is gone."""
        try:
            return self.peer.connection.recv()
        except (EOFError, OSError):
            return self.failure()

    def failure(self) -> Failure:
        """Return the failure that the process is gone."""
        whose = f"the process of the trainer's rank {self.number}"
        epitaph = f"{whose} {self.peer.epitaph()}; --resume goes on from the last checkpoint"
        return Failure(epitaph, AgentRLError(epitaph), died=True)

    def end(self, patience: float) -> None:
        """Wait for the process to end by itself, and then no longer."""
        self.peer.end(patience)
        self.peer.connection.close()


def _program(number: int, device: str) -> Program:
    return Program("agentrl_torch.rank", "trainer", number, device)


def _share(resources: Resources, ranks: int, program: Program, peer: Peer) -> Resources:
    """Return what a rank gets: its part of the threads, and a GPU of its own if the run's device is one."""
    threads = peer.threads or max(1, resources.threads // ranks)
    return replace(resources, threads=threads, device=program.own_device, runtime=None)


def _whole(model: Path | str) -> Path | str:
    """Return the model's place for a process that may work in another folder."""
    return model.absolute() if isinstance(model, Path) else model


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
