"""Who computes what: shares the trajectories of a minibatch out to ranks, evenly by unique tokens.

Every rank knows all trajectories and comes to the same answer. What is shared out are groups, so that what
their trajectories have in common is still computed once; a group that is larger than an even share is cut.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from agentrl_torch.micro_batch import MicroBatch, Row, pack, pack_all, pieces, unique_tokens
from agentrl_torch.world import World


def share(rows: Sequence[Row], ranks: int, budget: int) -> list[list[Row]]:
    """Return each rank's trajectories, in the order they came: the largest piece goes to who has least."""
    groups = [list(members) for _, members in groupby(rows, key=lambda row: row.group)]
    even = -(-sum(unique_tokens(group) for group in groups) // ranks)
    cut = [piece for group in groups for piece in pieces(group, min(budget, even))]
    shares: list[list[Row]] = [[] for _ in range(ranks)]
    loads = [0] * ranks
    for size, _, piece in sorted(_sized(cut), reverse=True):
        least = loads.index(min(loads))
        shares[least] += piece
        loads[least] += size
    return [sorted(mine, key=lambda row: (row.group, row.member)) for mine in shares]


def _sized(cut: Sequence[list[Row]]) -> list[tuple[int, int, list[Row]]]:
    """Return the pieces with their sizes; of equal ones the first stands higher."""
    return [(unique_tokens(piece), -place, piece) for place, piece in enumerate(cut)]


def micro_batches(rows: Sequence[Row], budget: int, world: World) -> list[MicroBatch]:
    """Return what this rank computes of `rows`, in micro-batches of at most `budget` unique tokens.

    Ranks exchange weights in every pass, so each makes as many as the one that has most: who has fewer adds
    spare ones, which count nothing.
    """
    if world.size == 1:
        return pack_all(rows, budget)
    mine = pack_all(share(rows, world.size, budget)[world.rank], budget)
    missing = world.most(len(mine)) - len(mine)
    return mine + [spare(rows)] * missing


def spare(rows: Sequence[Row]) -> MicroBatch:
    """Return the smallest trajectory as a micro-batch that is computed for the other ranks' sake only."""
    return replace(pack([min(rows, key=lambda row: unique_tokens([row]))]), spare=True)
