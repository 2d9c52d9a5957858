"""From groups to micro-batches: what must be computed, and where each sampled token's numbers are found.

A trajectory is never split. The trajectories of a group stay together where the budget allows it, since it
is they that share tokens.

Shapes: N sampled tokens of a trajectory or micro-batch, R slots whose logits are needed, U unique pairs of
such a slot and the token sampled after it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agentrl.errors import AgentRLError
from agentrl.types import Group, Segment, Span, Trajectory
from agentrl_torch.layout import Layout, lay_out
from agentrl_torch.trie import Ids, IntArray, Trie, build, count_unique

# With more tokens at once, activations fall out of the processor's cache; with far fewer, calls cost more.
HANDY = 8192


@dataclass(slots=True)
class Row:
    """A trajectory, as arrays.

    Attributes:
        group: index of its group in the batch.
        member: its index in the group.
        task: the task's id, for messages.
        sequences: the ids of each segment, up to the last token after which one was sampled.
        sources: for each segment, the places of the tokens after which one was sampled.
        targets_N: the sampled ids.
        turns_N: the turn of each.
        rollout_logprobs_N: as the engine reported them; NaN where no model sampled the token.
        temperatures_N: of the distribution each was sampled from.
        audited_N: whether the trainer's weights sampled it, and should agree.
    """

    group: int
    member: int
    task: str
    sequences: list[Ids]
    sources: list[IntArray]
    targets_N: IntArray
    turns_N: IntArray
    rollout_logprobs_N: NDArray[np.float64]
    temperatures_N: NDArray[np.float64]
    audited_N: NDArray[np.bool_]

    @property
    def sampled(self) -> int:
        """Return how many tokens were sampled."""
        return len(self.targets_N)


@dataclass(slots=True)
class MicroBatch:
    """Trajectories that are computed at once; tokens are packed, trajectory after trajectory.

    Attributes:
        rows: the trajectories.
        trie: all their sequences.
        layout: for attention.
        slots_R: where logits are needed, ascending; twice where two temperatures sampled after it.
        temperature_R: that the logits are divided by; None where all are 1.
        row_U: index into `slots_R` of each unique (slot, token) pair, ascending.
        target_U: the token of each pair.
        pair_N: the pair of each sampled token.
        trajectory_N: index into `rows` of each.
        turn_N: its turn.
        rollout_logprobs_N: as the engine reported them, float64.
        audited_N: whether the trainer's weights sampled it, and should agree.
        spare: whether this is computed for the sake of other ranks only, and counts nothing.
    """

    rows: list[Row]
    trie: Trie
    layout: Layout
    slots_R: Tensor
    temperature_R: Tensor | None
    row_U: Tensor
    target_U: Tensor
    pair_N: Tensor
    trajectory_N: Tensor
    turn_N: Tensor
    rollout_logprobs_N: Tensor
    audited_N: Tensor
    spare: bool = False


def encode(groups: Sequence[Group], version: int | None = None) -> list[Row]:
    """Return the trajectories that sampled something, in order; `version` is that of the trainer's weights.

    Raises:
        AgentRLError: the spans of a segment do not fit its tokens.
    """
    return [
        _row(trajectory, index, member, version)
        for index, group in enumerate(groups)
        for member, trajectory in enumerate(group.trajectories)
        if trajectory.sampled
    ]


def _row(trajectory: Trajectory, group: int, member: int, version: int | None) -> Row:
    segments = [segment for segment in trajectory.segments if segment.sampled]
    spans = [span for segment in segments for span in segment.spans]
    for segment in segments:
        _check(segment, trajectory)
    return Row(
        group=group,
        member=member,
        task=trajectory.task.id,
        sequences=[np.array(s.token_ids[: s.spans[-1].stop - 1], np.int32) for s in segments],
        sources=[np.concatenate([np.arange(a.start, a.stop) - 1 for a in s.spans]) for s in segments],
        targets_N=np.array([i for s in segments for a in s.spans for i in s.token_ids[a.start : a.stop]]),
        turns_N=np.concatenate([np.full(len(span.logprobs), span.turn) for span in spans]),
        rollout_logprobs_N=np.concatenate([np.array(span.logprobs, np.float64) for span in spans]),
        temperatures_N=np.concatenate([np.full(len(span.logprobs), span.temperature) for span in spans]),
        audited_N=np.concatenate([_audited(span, version) for span in spans]),
    )


def _audited(span: Span, version: int | None) -> NDArray[np.bool_]:
    current = version is None or span.version == version
    return ~np.isnan(np.array(span.logprobs, np.float64)) & current


def _check(segment: Segment, trajectory: Trajectory) -> None:
    end = 1
    for span in segment.spans:
        if span.start < end or span.stop > len(segment.token_ids):
            raise AgentRLError(
                f"task {trajectory.task.id!r}: a sampled span covers tokens {span.start} to {span.stop} of a "
                f"segment of {len(segment.token_ids)}; spans must follow one another after a given token"
            )
        end = span.stop


def split(rows: Sequence[Row], minibatches: int) -> list[list[Row]]:
    """Return up to `minibatches` parts of about equal size, groups whole if there are enough of them."""
    groups = [list(members) for _, members in groupby(rows, key=lambda row: row.group)]
    units = groups if len(groups) >= minibatches else [[row] for row in rows]
    bounds = [len(units) * part // minibatches for part in range(minibatches + 1)]
    return [[row for unit in units[a:b] for row in unit] for a, b in pairwise(bounds) if a < b]


def pack_all(rows: Sequence[Row], budget: int) -> list[MicroBatch]:
    """Lay `rows` into micro-batches of at most `budget` unique tokens; a larger trajectory goes alone.

    What different groups share is not counted on, so they are put together only as far as it is handy.
    """
    parts: list[list[Row]] = [[]]
    left = handy = min(budget, HANDY)
    for _, members in groupby(rows, key=lambda row: row.group):
        for piece in pieces(list(members), budget):
            size = unique_tokens(piece)
            if parts[-1] and size > left:
                parts.append([])
                left = handy
            parts[-1].extend(piece)
            left -= size
    return [pack(part) for part in parts if part]


def pieces(members: list[Row], budget: int) -> list[list[Row]]:
    """Cut a group into as few pieces as fit the budget; a trajectory stays whole."""
    if unique_tokens(members) <= budget:
        return [members]
    found = [members[:1]]
    for row in members[1:]:
        if unique_tokens([*found[-1], row]) <= budget:
            found[-1] = [*found[-1], row]
        else:
            found.append([row])
    return found


def unique_tokens(rows: Sequence[Row]) -> int:
    """Return how many tokens must be computed for `rows` together."""
    return count_unique([ids for row in rows for ids in row.sequences])


def pack(rows: list[Row]) -> MicroBatch:
    """Lay `rows` into one micro-batch."""
    trie = build([ids for row in rows for ids in row.sequences])
    sources = [places for row in rows for places in row.sources]
    slots_N = np.concatenate([slots[at] for slots, at in zip(trie.slots, sources, strict=True)])
    targets_N = np.concatenate([row.targets_N for row in rows])
    temperatures, which_N = np.unique(
        np.concatenate([row.temperatures_N for row in rows]), return_inverse=True
    )
    # One number for slot, temperature and token: sorting it sorts by slot first.
    span = int(targets_N.max()) + 1
    drawn_N = slots_N * len(temperatures) + which_N
    pairs_U, pair_N = np.unique(drawn_N * span + targets_N, return_inverse=True)
    drawn_R, row_U = np.unique(pairs_U // span, return_inverse=True)
    slots_R = drawn_R // len(temperatures)
    return MicroBatch(
        rows=rows,
        trie=trie,
        layout=lay_out(trie, np.unique(slots_R)),
        slots_R=torch.from_numpy(slots_R),
        temperature_R=_unless_one(temperatures[drawn_R % len(temperatures)]),
        row_U=torch.from_numpy(row_U),
        target_U=torch.from_numpy(pairs_U % span),
        pair_N=torch.from_numpy(pair_N),
        trajectory_N=torch.from_numpy(np.repeat(np.arange(len(rows)), [row.sampled for row in rows])),
        turn_N=torch.from_numpy(np.concatenate([row.turns_N for row in rows])),
        rollout_logprobs_N=torch.from_numpy(np.concatenate([row.rollout_logprobs_N for row in rows])),
        audited_N=torch.from_numpy(np.concatenate([row.audited_N for row in rows])),
    )


def _unless_one(temperatures: NDArray[np.float64]) -> Tensor | None:
    return None if (temperatures == 1).all() else torch.from_numpy(temperatures).float()
