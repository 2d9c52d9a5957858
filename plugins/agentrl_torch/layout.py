"""A token trie as attention needs it.

What a way of attention makes of it, such as blocks or masks, is made when its first layer asks, and kept
here for the others.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from agentrl_torch.trie import IntArray, Node, Trie

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """The nodes of a trie, and what of it is read.

    Attributes:
        nodes: of the trie.
        reads: the slots whose logits are read, ascending: in the last layer only they need queries, for only
            their outputs go on. None means all.
    """

    nodes: list[Node]
    reads: Tensor | None = None
    _made: dict[Any, Any] = field(default_factory=dict, repr=False)

    def once(self, make: Callable[..., T], *arguments: Any) -> T:
        """Return what `make` makes of this layout and the arguments, which is made but once."""
        key = make, arguments
        if key not in self._made:
            self._made[key] = make(self, *arguments)
        found: T = self._made[key]
        return found


def lay_out(trie: Trie, reads: IntArray | None = None) -> Layout:
    """Return the layout of `trie`, of which only the slots `reads`, ascending, are read."""
    return Layout(trie.nodes, None if reads is None else torch.from_numpy(reads))
