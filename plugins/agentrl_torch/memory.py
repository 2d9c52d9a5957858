"""How much memory PyTorch takes, and what is said when there is not enough.

On a GPU PyTorch counts itself; on the CPU the operating system counts for the whole process. A rank has a GPU
of its own, but main memory is shared by all ranks of a machine.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from platform import node
from typing import Any, TypeVar

import torch

from agentrl.errors import OutOfMemory
from agentrl.footprint import Rehearsal
from agentrl.hardware import GIB, free_memory, main_memory
from agentrl_torch.footprint import remedies
from agentrl_torch.world import World

T = TypeVar("T")
_STATUS = Path("/proc/self/status")
_FORGET = Path("/proc/self/clear_refs")
# What PyTorch and libc say where the CPU has no more.
_SAID = ("can't allocate memory", "not enough memory", "Cannot allocate memory")


class Watch:
    """Sees what is taken from now on."""

    def __init__(self, device: str, world: World) -> None:
        """Begin, together with all other ranks."""
        self.device = device
        self._on_gpu = torch.device(device).type == "cuda"
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats(device)
        else:
            _forget_peak()
            self._room = _own_room(world)
        self._before = self._held()

    def rehearsal(self, tokens: int) -> Rehearsal:
        """Return what was seen of an update of `tokens` unique tokens."""
        if self._on_gpu:
            free, room = torch.cuda.mem_get_info(self.device)
            # What other processes have on the device, and this one besides tensors, cannot be had.
            room -= max(0, room - free - torch.cuda.memory_reserved(self.device))
            peak = torch.cuda.max_memory_allocated(self.device)
        else:
            room, peak = self._room, _status("VmHWM")
        return Rehearsal(self.device, tokens, self._before, max(peak, self._before), room)

    def _held(self) -> int:
        return int(torch.cuda.memory_allocated(self.device)) if self._on_gpu else _status("VmRSS")


def metrics(device: torch.device) -> dict[str, float]:
    """Return GiB of a GPU: the most that this process had at once, and what all have now; then count anew."""
    if device.type != "cuda":
        return {}
    free, room = torch.cuda.mem_get_info(device)
    peak = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return {"memory/gpu_peak": peak / GIB, "memory/gpu_used": (room - free) / GIB}


def give_back(device: torch.device) -> None:
    """Leave what PyTorch keeps of a GPU for later to other processes, such as an engine that wakes."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def is_shortage(error: BaseException) -> bool:
    """Return whether an error says that there is not enough memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SAID)


@contextmanager
def told(what: str, help: Sequence[str]) -> Iterator[None]:
    """Say in one sentence that memory ran out in the block, and what helps.

    Raises:
        OutOfMemory: it did.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_shortage(error):
            raise
        raise OutOfMemory(
            f"there is not enough memory for {what}; what saves some: {'; '.join(help)}; then go on with "
            "--resume and the new setting"
        ) from error


def telling(what: str) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Return a decorator for methods of what has a trainer's `config`: running out of memory is `told`."""

    def decorate(method: Callable[..., T]) -> Callable[..., T]:
        @wraps(method)
        def call(self: Any, *arguments: Any, **more: Any) -> T:
            with told(what, remedies(self.config)):
                return method(self, *arguments, **more)

        return call

    return decorate


def _own_room(world: World) -> int:
    """Return the bytes of main memory that a rank can have: as many as the others on its machine."""
    free, here = free_memory(), node()
    # They all count what they have before one of them takes more.
    ours = [held for machine, held in world.gather((here, _status("RssAnon"))) if machine == here]
    whole = (main_memory() or 0) if free is None else free + sum(ours)
    return whole // len(ours)


def _forget_peak() -> None:
    """Have the operating system count the process's peak anew, if it can."""
    try:
        _FORGET.write_text("5")
    except OSError:  # not Linux, or not allowed: the peak is that of the whole life then
        return


def _status(name: str) -> int:
    """Return a size of the process, in bytes; 0 where the operating system does not say."""
    if not _STATUS.exists():
        return 0
    lines = (line.split() for line in _STATUS.read_text().splitlines())
    return next((int(line[1]) * 1024 for line in lines if line and line[0] == f"{name}:"), 0)
