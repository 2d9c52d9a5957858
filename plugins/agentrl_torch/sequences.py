"""What the engine has read: prefixes that sessions share, and the sessions themselves.

Both are runs of tokens with a parent: a prefix may follow another prefix (a system prompt, then a task), and
a session follows at most one chain of prefixes. `token_ids` always holds all ids from the first on; the keys
and values of `token_ids[start:computed]` are the sequence's own, those before belong to its parents.
"""

from collections.abc import Sequence as Ids
from dataclasses import dataclass, field

from torch import Tensor

from agentrl.types import Sampling


@dataclass(eq=False, slots=True)
class Prefix:
    """A run of tokens that several sessions begin with.

    `keys` and `values` are per layer, (1, K, length, D). `users` counts the sessions and prefixes that
    follow. `path` lists the serial numbers from the first prefix to this one: sorting by it lays the
    followers of any prefix side by side.
    """

    token_ids: list[int]
    parent: "Prefix | None"
    path: tuple[int, ...]
    keys: list[Tensor]
    values: list[Tensor]
    computed: int
    users: int = 0

    @property
    def start(self) -> int:
        """Return how many tokens belong to the parents."""
        return len(self.parent.token_ids) if self.parent else 0

    @property
    def ready(self) -> bool:
        """Return whether all of its tokens, and those before, are computed."""
        return self.available == len(self.token_ids)

    @property
    def ready_to_read(self) -> bool:
        """Return whether all that its own tokens look back to is computed."""
        return self.parent is None or self.parent.ready

    @property
    def available(self) -> int:
        """Return how many leading tokens have keys and values."""
        return self.computed if self.parent is None or self.parent.ready else self.parent.available

    def chain(self) -> "list[Prefix]":
        """Return the prefixes from the first one to this."""
        return [*(self.parent.chain() if self.parent else []), self]


@dataclass(eq=False, slots=True)
class Request:
    """One call of `Engine.generate` on its way through the engine, and what came of it."""

    token_ids: list[int]
    sampling: Sampling
    session: str
    sampled: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stopped: bool = False
    version: int = 0
    cancelled: bool = False


@dataclass(eq=False, slots=True)
class Session:
    """The tokens of one episode; `request` is what it works on, None while it is idle."""

    name: str
    slot: int
    token_ids: list[int] = field(default_factory=list)
    prefix: Prefix | None = None
    computed: int = 0
    request: Request | None = None
    used: int = 0
    released: bool = False

    @property
    def room(self) -> int:
        """Return how many tokens the request may sample."""
        return self.request.sampling.max_tokens if self.request else 0

    @property
    def start(self) -> int:
        """Return how many tokens belong to prefixes."""
        return len(self.prefix.token_ids) if self.prefix else 0

    @property
    def path(self) -> tuple[int, ...]:
        """Return where in the tree of prefixes the session hangs."""
        return self.prefix.path if self.prefix else ()

    @property
    def ready_to_read(self) -> bool:
        """Return whether all that the session's own tokens look back to is computed."""
        return self.prefix is None or self.prefix.ready

    @property
    def available(self) -> int:
        """Return how many leading tokens have keys and values."""
        return self.computed if self.prefix is None or self.prefix.ready else self.prefix.available


def common_length(left: Ids[int], right: Ids[int]) -> int:
    """Return how many leading ids are the same."""
    low, high = 0, min(len(left), len(right))
    if left[:high] == right[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low
