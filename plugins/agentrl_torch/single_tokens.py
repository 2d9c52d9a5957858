"""Which slots are attended to together, for the sequences that have one new token.

One call takes a range of slots, all to the same length: what it saves in calls it wastes on slots in between
that nobody asked for, and on the shorter ones. Neighbours are joined while that costs less than a call.

Shape letters: R rows with one new token, S slots that are looked at, B of them in one block, T longest tail.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

# Attending to so many numbers takes about as long as calling the kernel once more (measured, one thread).
_CALL = 32_768


@dataclass(slots=True)
class Block:
    """A range of slots that is looked at in one call, `longest` tokens deep.

    `bias_B11T` is 0 where a slot holds a token and -inf behind its end.
    """

    slots: slice
    longest: int
    length_B: Tensor
    bias_B11T: Tensor = field(init=False)

    def __post_init__(self) -> None:
        """Make the bias."""
        self._mask()

    def advance(self) -> None:
        """Make all tails a token longer."""
        self.longest += 1
        self.length_B += 1
        self._mask()

    def _mask(self) -> None:
        place_T = torch.arange(self.longest, device=self.length_B.device)
        behind_BT = place_T >= self.length_B.unsqueeze(1)
        bias_BT = torch.zeros(behind_BT.shape, device=behind_BT.device).masked_fill_(behind_BT, -math.inf)
        self.bias_B11T = bias_BT[:, None, None, :]


@dataclass(slots=True)
class SingleTokens:
    """The rows with one new token, and the blocks of slots they are served from.

    Attributes:
        blocks: one after another they make up the S slots.
        row_of_slot_S: whose query each slot gets: an index among all new tokens of the forward.
        token_R: index of each row's token among those.
        slot_R: index of each row's slot among the S.
    """

    blocks: list[Block]
    row_of_slot_S: Tensor
    token_R: Tensor
    slot_R: Tensor

    def advance(self) -> None:
        """Make all tails a token longer."""
        for block in self.blocks:
            block.advance()


@dataclass(frozen=True, slots=True)
class Row:
    """A session's slot, how many tokens are in it, the new one included, and where that is packed."""

    slot: int
    length: int
    token: int


def serve(rows: Sequence[Row], numbers_per_token: int, device: torch.device) -> SingleTokens:
    """Return how to serve `rows`; `numbers_per_token` is the size of a token's keys in one layer."""
    # On a GPU a call costs as much as looking at everything.
    call = _CALL / numbers_per_token if device.type == "cpu" else math.inf
    blocks: list[Block] = []
    row_of_slot: list[int] = []
    slot_of_token: dict[int, int] = {}
    for run in _runs(sorted(rows, key=lambda row: row.slot), call):
        low, high = run[0].slot, run[-1].slot + 1
        first = len(row_of_slot)
        row_of_slot += [0] * (high - low)
        lengths = [1] * (high - low)
        for row in run:
            row_of_slot[first + row.slot - low] = row.token
            lengths[row.slot - low] = row.length
            slot_of_token[row.token] = first + row.slot - low
        blocks.append(Block(slice(low, high), max(lengths), torch.tensor(lengths, device=device)))
    return SingleTokens(
        blocks,
        torch.tensor(row_of_slot, device=device),
        torch.tensor(list(slot_of_token), device=device),
        torch.tensor(list(slot_of_token.values()), device=device),
    )


def _runs(rows: Sequence[Row], call: float) -> list[list[Row]]:
    """Split `rows`, sorted by slot, into those that one call serves; `call` is its price in tokens."""
    runs = [[rows[0]]]
    longest = rows[0].length
    for row in rows[1:]:
        joint_longest = max(longest, row.length)
        joined = (row.slot + 1 - runs[-1][0].slot) * joint_longest
        apart = (runs[-1][-1].slot + 1 - runs[-1][0].slot) * longest + row.length + call
        if joined <= apart:
            runs[-1].append(row)
            longest = joint_longest
        else:
            runs.append([row])
            longest = row.length
    return runs
