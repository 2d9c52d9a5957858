"""Holds the keys and values of tokens that were already read, so that a turn costs only its new tokens.

Two kinds of storage. The tails: every session owns one slot for the tokens that are its own; the slots of a
layer are one tensor, so that one operation serves all rows that decode together. The prefixes: tokens that
several sessions begin with are computed once and stored once, in a tensor of their own, however many
sessions refer to it.

Shape letters: S slots, K key-value heads, C capacity of a slot (tokens), D head size, L tokens.
"""

import heapq
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# Bytes of a cache line: the alignment that kernels like best, and the same one every time.
_LINE = 64


@dataclass(frozen=True, slots=True)
class CacheSpec:
    """What it takes to store one token of a model: every layer alike."""

    layers: int
    heads: int
    key_size: int
    value_size: int
    dtype: torch.dtype
    device: torch.device

    def keys(self, *leading: int, length: int) -> list[Tensor]:
        """Return zeroed storage for keys, one (*leading, K, length, D) a layer."""
        return [self._zeros((*leading, self.heads, length, self.key_size)) for _ in range(self.layers)]

    def values(self, *leading: int, length: int) -> list[Tensor]:
        """Return zeroed storage for values, one (*leading, K, length, D) a layer."""
        return [self._zeros((*leading, self.heads, length, self.value_size)) for _ in range(self.layers)]

    def _zeros(self, shape: tuple[int, ...]) -> Tensor:
        # Zeros, not empty: attention masks what was never written, but a NaN there would get through.
        if self.device.type != "cpu":
            return torch.zeros(shape, dtype=self.dtype, device=self.device)
        # The system gives zeroed pages, and only when they are written to, where torch would write to all.
        size = math.prod(shape) * self.dtype.itemsize
        raw = torch.from_numpy(np.zeros(size + _LINE, dtype=np.uint8))
        first = -raw.data_ptr() % _LINE
        return raw[first : first + size].view(self.dtype).view(shape)


class Tails:
    """The slots: per layer, keys and values of shape (S, K, C, D). Grows by doubling, never shrinks."""

    def __init__(self, spec: CacheSpec) -> None:
        """Begin without slots."""
        self.spec = spec
        self.slots = 0
        self.capacity = 0
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self._free: list[int] = []
        self._first_size = (8, 128)

    @classmethod
    def holding(cls, spec: CacheSpec, slots: int, capacity: int) -> "Tails":
        """Return storage with so many slots for so many tokens each."""
        tails = cls(spec)
        tails._resize(slots, capacity)
        return tails

    def clear(self) -> None:
        """Give all memory back and forget every slot; what comes next is expected to be of the same size."""
        self._first_size = max(self.slots, self._first_size[0]), max(self.capacity, self._first_size[1])
        self.slots, self.capacity = 0, 0
        self.keys, self.values, self._free = [], [], []

    def take(self) -> int:
        """Return the lowest free slot; low slots keep the rows that decode together side by side."""
        if not self._free:
            slots, capacity = self._first_size
            self._resize(max(slots, 2 * self.slots), max(capacity, self.capacity))
        return heapq.heappop(self._free)

    def give_back(self, slot: int) -> None:
        """Make `slot` free again; what it holds stays until overwritten."""
        heapq.heappush(self._free, slot)

    def of_slot(self, slot: int) -> tuple[list[Tensor], list[Tensor]]:
        """Return the keys and the values of one slot, (1, K, C, D) a layer, as views."""
        one = slice(slot, slot + 1)
        return [keys_SKCD[one] for keys_SKCD in self.keys], [values_SKCD[one] for values_SKCD in self.values]

    def reserve(self, length: int) -> None:
        """Make room for tails of `length` tokens."""
        if length > self.capacity:
            self._resize(self.slots, max(length, 2 * self.capacity))

    def _resize(self, slots: int, capacity: int) -> None:
        for slot in range(self.slots, slots):
            heapq.heappush(self._free, slot)
        self.keys = _grown(self.keys, self.spec.keys(slots, length=capacity))
        self.values = _grown(self.values, self.spec.values(slots, length=capacity))
        self.slots, self.capacity = slots, capacity


def _grown(old: list[Tensor], new: list[Tensor]) -> list[Tensor]:
    """Return `new` with the contents of `old`, which is emptied on the way to save memory."""
    for new_SKCD in new:
        if old:
            old_SKCD = old.pop(0)
            slots, _, capacity, _ = old_SKCD.shape
            new_SKCD[:slots, :, :capacity] = old_SKCD
    return new
