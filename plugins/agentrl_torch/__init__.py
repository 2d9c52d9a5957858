"""One process, one machine: generate with plain PyTorch, train on the token trie.

`TorchEngine` and `TorchTrainer` load any causal language model of transformers. Both are imported on first
use, so that looking at the package costs no import of torch.
"""

import os
from typing import TYPE_CHECKING, Any

# Read when torch is loaded: threads of it that have nothing to do leave their core to others. By default they
# keep it busy for a while, and web pages that are played beside the engine take a quarter longer.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from agentrl_torch.engine import TorchEngine
    from agentrl_torch.trainer import TorchTrainer

__all__ = ["TorchEngine", "TorchTrainer"]


def __getattr__(name: str) -> Any:
    if name == "TorchEngine":
        from agentrl_torch.engine import TorchEngine

        return TorchEngine
    if name == "TorchTrainer":
        from agentrl_torch.trainer import TorchTrainer

        return TorchTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
