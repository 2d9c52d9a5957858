"""Lays the new tokens of many sequences one after another, for one forward.

The sequences are in the order of their paths, so that all who follow a prefix are side by side.

Shape letters: B batch, 1; N new tokens, R rows that sample, K key heads.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from agentrl_torch.cached_attention import Chunk, Layout, Shared
from agentrl_torch.kv_cache import Tails
from agentrl_torch.sequences import Prefix, Session
from agentrl_torch.single_tokens import Row, SingleTokens, serve


@dataclass(frozen=True, slots=True)
class Piece:
    """The next `length` tokens of a sequence; N[begin:begin+length] once it is packed."""

    sequence: Session | Prefix
    length: int
    begin: int = 0

    @property
    def end(self) -> int:
        """Return the index, among the N, after its last token."""
        return self.begin + self.length

    @property
    def kept(self) -> int:
        """Return how many of the sequence's own tokens are computed already."""
        return self.sequence.computed - self.sequence.start


@dataclass(slots=True)
class Packed:
    """The input of one forward.

    Attributes:
        ids_BN, positions_BN: the new tokens.
        layout: for the attention.
        pieces: whose tokens they are, in order.
        sampling: the sessions all of whose ids are read by this forward: they sample next.
        last_R: index of the last token of each.
    """

    ids_BN: Tensor
    positions_BN: Tensor
    layout: Layout
    pieces: list[Piece]
    sampling: list[Session]
    last_R: Tensor

    @property
    def only_samples(self) -> bool:
        """Return whether each sequence has one token here, and samples."""
        return len(self.sampling) == self.ids_BN.shape[1]

    def advance(self, token_R: Tensor) -> None:
        """Become the input of the next forward, where all go on with the tokens that they sampled.

        The same as packing anew, in a fraction of the time: most forwards are of this kind.
        """
        self.ids_BN = token_R.unsqueeze(0)
        self.positions_BN += 1
        self.layout.places += 1
        if self.layout.singles is not None:
            self.layout.singles.advance()


def pack(pieces: Sequence[Piece], tails: Tails, device: torch.device) -> Packed:
    """Return the input of the forward that computes `pieces`."""
    placed = _place(pieces)
    ids: list[int] = []
    positions: list[int] = []
    for piece in placed:
        first = piece.sequence.computed
        ids += piece.sequence.token_ids[first : first + piece.length]
        positions += range(first, first + piece.length)
    last = [piece for piece in placed if _completes(piece)]
    return Packed(
        torch.tensor([ids], device=device),
        torch.tensor([positions], device=device),
        _layout(placed, tails, device),
        placed,
        [piece.sequence for piece in last if isinstance(piece.sequence, Session)],
        torch.tensor([piece.end - 1 for piece in last], dtype=torch.long, device=device),
    )


def _place(pieces: Sequence[Piece]) -> list[Piece]:
    placed, begin = [], 0
    for piece in sorted(pieces, key=lambda piece: (piece.sequence.path, _slot(piece))):
        placed.append(Piece(piece.sequence, piece.length, begin))
        begin += piece.length
    return placed


def _slot(piece: Piece) -> int:
    return piece.sequence.slot if isinstance(piece.sequence, Session) else -1


def _completes(piece: Piece) -> bool:
    sequence = piece.sequence
    return isinstance(sequence, Session) and sequence.computed + piece.length == len(sequence.token_ids)


def _layout(placed: list[Piece], tails: Tails, device: torch.device) -> Layout:
    in_tails = [piece for piece in placed if isinstance(piece.sequence, Session)]
    singles = [piece for piece in in_tails if piece.length == 1]
    layout = Layout(tails, _tail_tokens(placed, in_tails, device), _places(in_tails, tails, device))
    layout.singles = _singles(singles, tails, device) if singles else None
    layout.shared = _shared(placed)
    for piece in placed:
        chunk = _chunk(piece, tails)
        if isinstance(piece.sequence, Prefix):
            layout.stored_chunks.append(chunk)
        if isinstance(piece.sequence, Prefix) or piece.length > 1:
            layout.chunks.append(chunk)
    layout.last = _last_layer(placed, tails, device) if layout.chunks else None
    return layout


def _last_layer(placed: list[Piece], tails: Tails, device: torch.device) -> Layout:
    """Return the layout of those tokens that sample: what the others attend to there, nothing reads."""
    read = [piece for piece in placed if _completes(piece)]
    rows = [Row(_slot(p), p.kept + p.length, index) for index, p in enumerate(read)]
    reads = torch.tensor([piece.end - 1 for piece in read], dtype=torch.long, device=device)
    layout = Layout(tails, None, reads[:0], reads=reads)
    layout.singles = serve(rows, tails.spec.heads * tails.spec.key_size, device) if rows else None
    layout.shared = _shared([Piece(p.sequence, 1, index) for index, p in enumerate(read)])
    return layout


def _tail_tokens(placed: list[Piece], in_tails: list[Piece], device: torch.device) -> Tensor | None:
    if len(in_tails) == len(placed):
        return None
    tokens = [token for piece in in_tails for token in range(piece.begin, piece.end)]
    return torch.tensor(tokens, dtype=torch.long, device=device)


def _places(in_tails: list[Piece], tails: Tails, device: torch.device) -> Tensor:
    """Return where each token's heads go in a layer's tails, seen as rows of D: ((slot, head), place)."""
    heads = tails.spec.heads
    firsts = [_slot(piece) * heads * tails.capacity + piece.kept for piece in in_tails]
    flat = [first + i for first, piece in zip(firsts, in_tails, strict=True) for i in range(piece.length)]
    places_N1 = torch.tensor(flat, dtype=torch.long, device=device).unsqueeze(1)
    return (places_N1 + torch.arange(heads, device=device) * tails.capacity).flatten()


def _chunk(piece: Piece, tails: Tails) -> Chunk:
    sequence = piece.sequence
    if isinstance(sequence, Prefix):
        return Chunk(piece.begin, piece.end, piece.kept, sequence.keys, sequence.values)
    return Chunk(piece.begin, piece.end, piece.kept, *tails.of_slot(sequence.slot))


def _singles(singles: list[Piece], tails: Tails, device: torch.device) -> SingleTokens:
    rows = [Row(_slot(piece), piece.kept + 1, piece.begin) for piece in singles]
    return serve(rows, tails.spec.heads * tails.spec.key_size, device)


def _shared(placed: list[Piece]) -> list[list[Shared]]:
    """Return which tokens look back to which prefix, as runs of one depth."""
    spans: dict[int, tuple[int, Shared]] = {}
    for piece in placed:
        sequence = piece.sequence
        above = sequence.prefix if isinstance(sequence, Session) else sequence.parent
        for depth, prefix in enumerate(above.chain() if above else []):
            span = Shared(piece.begin, piece.end, prefix.keys, prefix.values)
            spans.setdefault(id(prefix), (depth, span))[1].end = piece.end
    runs: dict[int, list[list[Shared]]] = {}
    for depth, span in spans.values():
        of_depth = runs.setdefault(depth, [])
        if of_depth and of_depth[-1][-1].end == span.begin:
            of_depth[-1].append(span)
        else:
            of_depth.append([span])
    return [run for depth in sorted(runs) for run in runs[depth]]
