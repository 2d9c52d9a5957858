"""Who trains together: ranks, each a process with a share of the tokens, or this process alone."""

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class World:
    """The ranks of a trainer, as one of them sees them; by default there is only this one.

    Where there are several, everybody has to call the same methods in the same order.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Return whether this is the rank that writes."""
        return self.rank == 0

    def gather(self, mine: _T) -> list[_T]:
        """Return what each rank has given, in the order of ranks."""
        if self.size == 1:
            return [mine]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, mine)
        return found

    def most(self, number: int) -> int:
        """Return the largest of the ranks' numbers."""
        if self.size == 1:
            return number
        largest = torch.tensor(number)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)


ALONE = World()


def join(rank: int, size: int, meeting_point: str, device: str) -> World:
    """Meet the other ranks at PyTorch's `init_method`, such as a file that is not there yet.

    Numbers of this program are exchanged over gloo, tensors on GPUs over NCCL. All ranks are connected when
    this returns, so that the meeting point is needed no longer.
    """
    backend = "gloo" if torch.device(device).type == "cpu" else "cpu:gloo,cuda:nccl"
    if torch.device(device).type != "cpu":
        torch.cuda.set_device(device)
    dist.init_process_group(backend, init_method=meeting_point, rank=rank, world_size=size)
    if torch.device(device).type != "cpu":
        # NCCL meets at the first tensor that it exchanges.
        dist.all_reduce(torch.zeros(1, device=device))
    return World(rank, size)
