"""How many threads a forward is worth.

Torch splits every single operation over its threads and waits for all of them. For the short operations of a
small model that decodes a few tokens the waiting costs more than the second thread brings: the rollouts
of a model of a million parameters took 1.25 s with two threads and 0.85 s with this rule.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

# Multiplications and additions below which one thread is faster; some milliseconds of work.
FEW = 2e8


@contextmanager
def enough_threads(model: nn.Module, tokens: int) -> Iterator[None]:
    """Let one thread compute the block if a forward of `tokens` tokens is little work; on the CPU only."""
    configured = torch.get_num_threads()
    if configured == 1 or not is_little(model, tokens):
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(configured)


def is_little(model: nn.Module, tokens: int) -> bool:
    """Return whether a forward of so many tokens is too little work to share."""
    weights = list(model.parameters())
    on_cpu = weights[0].device.type == "cpu"
    return on_cpu and 2 * tokens * sum(weight.numel() for weight in weights) < FEW
