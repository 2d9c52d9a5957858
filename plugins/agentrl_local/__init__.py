"""The runtime that needs no other machine: processes of this one, with its GPUs.

Every process gets a pipe, and what this process has as environment. Trainers get a GPU each, from the run's
device on; engines take turns with them, and share GPUs where there are too few.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from agentrl.errors import UsageError
from agentrl.runtime import Peer, Program, Runtime
from agentrl.scratch import scratch


class Local(Runtime):
    """Starts processes on this machine."""

    def launch(self, programs: Sequence[Program]) -> list[Peer]:
        """Start processes.

        Raises:
            UsageError: there are not enough GPUs for the ranks of a trainer.
        """
        variables = [{**program.variables, **_surroundings(program)} for program in programs]
        gpus = visible_gpus(programs)
        peers: list[Peer] = []
        try:
            for program, own, more in zip(programs, gpus, variables, strict=True):
                peers.append(start(program.module, {**more, **own}))
        except BaseException:
            for peer in peers:
                peer.end(0.0)
            raise
        return peers

    @contextmanager
    def meeting(self, peers: Sequence[Peer]) -> Iterator[str]:
        """Yield a file that is not there yet, to meet at."""
        with scratch("ranks") as folder:
            yield f"file://{folder}/meeting"


class LocalPeer(Peer):
    """A process of this machine."""

    def __init__(self, process: "subprocess.Popen[bytes]", connection: Connection) -> None:
        """Take the process and our end of its pipe."""
        self.process = process
        self.pid = process.pid
        self.connection = connection

    def epitaph(self) -> str:
        """Wait for the end of the process, and return how it ended."""
        code = self.process.wait()
        return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def end(self, patience: float) -> None:
        """Wait for the process to end by itself, and then no longer."""
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(module: str, variables: Mapping[str, str]) -> LocalPeer:
    """Start a process of this machine, with `variables` besides those of this one."""
    here, there = Pipe()
    command = [sys.executable, "-m", module, str(there.fileno())]
    try:
        process = subprocess.Popen(
            command,
            pass_fds=[there.fileno()],
            stdin=subprocess.DEVNULL,
            env={**os.environ, **variables},
        )
    finally:
        there.close()
    return LocalPeer(process, here)


def visible_gpus(programs: Sequence[Program]) -> list[Mapping[str, str]]:
    """Return for each process the variable that shows it its GPUs, if it is to have any.

    Raises:
        UsageError: there are not enough for the ranks of a trainer.
    """
    return [_gpus(program, len(programs)) for program in programs]


def _gpus(program: Program, together: int) -> Mapping[str, str]:
    if not program.device.startswith("cuda"):
        return {}
    import torch

    first, there = torch.device(program.device).index or 0, torch.cuda.device_count()
    if program.role == "trainer" and first + together > there:
        raise UsageError(
            f"trainer.ranks={together} needs {together} GPUs from {program.device!r} on, and this machine "
            f"has {there}; lower trainer.ranks"
        )
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = named.split(",") if named else [str(each) for each in range(there)]
    mine = range(first + program.number * program.gpus, first + (program.number + 1) * program.gpus)
    return {"CUDA_VISIBLE_DEVICES": ",".join(visible[each % len(visible)] for each in mine)}


def _surroundings(program: Program) -> Mapping[str, str]:
    """Return what the ranks of one machine are told: they need no other network than its own."""
    alone = program.role == "trainer" and os.path.isdir("/sys/class/net/lo")
    return {"GLOO_SOCKET_IFNAME": "lo"} if alone else {}
