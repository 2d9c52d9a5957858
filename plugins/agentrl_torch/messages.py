"""What the main process and a rank say to one another, beside requests: a name and arguments."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentrl.errors import AgentRLError
from agentrl.interfaces import Resources

if TYPE_CHECKING:
    from agentrl_torch.config import TorchConfig
    from agentrl_torch.sharding import Sharding


UNREADABLE = (
    "an algorithm cannot be sent to the processes that train ({}); define its class in a module that can be "
    "imported, or leave trainer.ranks at 1"
)


@dataclass(frozen=True, slots=True)
class Setup:
    """Who a rank is, and how it is to train.

    Attributes:
        rank: which one it is, from 0.
        ranks: how many there are.
        meeting_point: where the ranks find one another, as PyTorch's `init_method`.
        resources: its own.
        config: how to train.
        sharding: how models lie over the ranks.
    """

    rank: int
    ranks: int
    meeting_point: str
    resources: Resources
    config: "TorchConfig"
    sharding: "Sharding"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something could not be done.

    `expected` is an error that its user is meant to read, or the operating system's about a file that could
    not be written; of others there is only the text. `died` says that the process is gone.
    """

    text: str
    expected: AgentRLError | OSError | None = None
    died: bool = False
