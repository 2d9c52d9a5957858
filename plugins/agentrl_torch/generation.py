"""The synchronous half of the engine: takes requests, runs forwards, samples, says who is done.

Everything here runs in one thread. A forward holds what is still to be read of new requests, up to a limit,
and, once all of that is under way, the next token of every row that samples (continuous batching).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from agentrl.errors import AgentRLError
from agentrl.stopping import StopRule
from agentrl_torch.cached_attention import use_layout
from agentrl_torch.packing import Packed, Piece, pack
from agentrl_torch.sampling import Sampler
from agentrl_torch.sequences import Prefix, Request, Session
from agentrl_torch.sessions import SessionStore
from agentrl_torch.threads import enough_threads

_DIVERGED = (
    "the model's logits are not numbers: training has diverged; resume from an earlier checkpoint "
    "with a lower learning rate"
)


@dataclass(frozen=True, slots=True)
class _Batch:
    """What one forward computes, and how its rows sample."""

    packed: Packed
    requests: list[Request]
    sampler: Sampler

    @classmethod
    def of(cls, packed: Packed) -> "_Batch":
        requests = [session.request for session in packed.sampling if session.request is not None]
        return cls(
            packed, requests, Sampler([request.sampling for request in requests], packed.last_R.device)
        )


class Generator:
    """Rows in work, requests that wait for a row, and the sessions behind them."""

    def __init__(
        self,
        model: PreTrainedModel,
        store: SessionStore,
        stop_rule: StopRule,
        max_rows: int,
        max_prefill: int,
    ) -> None:
        """Take a model whose attention is `cached_attention`.

        Args:
            model: in evaluation mode.
            store: of the sessions.
            stop_rule: tells when a completion is over.
            max_rows: how many requests are worked on together.
            max_prefill: how many given tokens are read in one forward.
        """
        self.model = model
        self.store = store
        self.version = 0
        self._stop_rule = stop_rule
        self._max_rows = max_rows
        self._max_prefill = max_prefill
        self._waiting: list[Request] = []
        self._rows: list[Session] = []
        self._batch: _Batch | None = None  # what the next forward computes, if that is known already

    @property
    def busy(self) -> bool:
        """Return whether there is anything to do."""
        return bool(self._waiting or self._rows)

    @torch.inference_mode()
    def run(
        self, arrived: Sequence[Request], released: Sequence[str], interrupted: Callable[[], bool]
    ) -> list[Request]:
        """Work until a request is done or `interrupted` says that there is news; return those done.

        Args:
            arrived: new requests, in the order in which they are to be served.
            released: names of sessions to forget, before `arrived` are looked at.
            interrupted: asked after every forward.
        """
        self._batch = None
        self._waiting.extend(arrived)
        self._drop_cancelled()
        for name in released:
            self.store.release(name)
        done: list[Request] = []
        while self.busy and not done:
            self._admit()
            done = self._step()
            if interrupted():
                break
        return done

    def reset(self) -> None:
        """Forget all requests and sessions and give memory back."""
        for session in self._rows:
            self.store.finish(session)
        self._batch = None
        self._rows.clear()
        self._waiting.clear()
        self.store.clear()
        self.store.tails.clear()

    def _drop_cancelled(self) -> None:
        self._waiting = [request for request in self._waiting if not request.cancelled]
        for session in self._rows:
            if session.request is not None and session.request.cancelled:
                self.store.finish(session)
        self._rows = [session for session in self._rows if session.request is not None]

    def _admit(self) -> None:
        """Give waiting requests a row; of one session only one at a time."""
        if not self._waiting:
            return
        busy = {session.name for session in self._rows}
        admitted: list[Request] = []
        left: list[Request] = []
        for request in self._waiting:
            if request.session in busy or len(busy) >= self._max_rows:
                left.append(request)
            else:
                request.version = self.version
                admitted.append(request)
                busy.add(request.session)
        self._waiting = left
        self._rows.extend(self.store.open(admitted))

    def _step(self) -> list[Request]:
        if self._batch is None:
            self._batch = _Batch.of(pack(self._choose(), self.store.tails, self.model.device))
        batch = self._batch
        logits_RV = self._forward(batch.packed)
        for piece in batch.packed.pieces:
            piece.sequence.computed += piece.length
        return self._sample(batch, logits_RV)

    def _choose(self) -> list[Piece]:
        """Return what the next forward computes.

        Rows that sample wait while others have more to read than one forward takes: then all sample together.
        """
        unread = self._unread()
        reading, left = [], self._max_prefill
        for sequence in unread:
            length = min(left, len(sequence.token_ids) - sequence.computed)
            if length and sequence.ready_to_read:
                reading.append(Piece(sequence, length))
                left -= length
        if len(reading) < len(unread) or left == 0:
            return reading
        return reading + [
            Piece(s, 1) for s in self._rows if len(s.token_ids) - s.computed == 1 and s.ready_to_read
        ]

    def _unread(self) -> list[Prefix | Session]:
        """Return the sequences with more than their last token to read, prefixes first."""
        prefixes: list[Prefix | Session] = [p for p in self.store.prefixes if p.computed < len(p.token_ids)]
        return prefixes + [session for session in self._rows if len(session.token_ids) - session.computed > 1]

    def _forward(self, packed: Packed) -> Tensor:
        keep = packed.last_R if packed.sampling else packed.last_R.new_zeros(1)
        with use_layout(packed.layout), enough_threads(self.model, packed.ids_BN.shape[1]):
            output = self.model(
                input_ids=packed.ids_BN,
                position_ids=packed.positions_BN,
                use_cache=False,
                logits_to_keep=keep,
            )
        logits_RV: Tensor = output.logits[0]
        return logits_RV

    def _sample(self, batch: "_Batch", logits_RV: Tensor) -> list[Request]:
        sessions = batch.packed.sampling
        self._batch = None
        if not sessions:
            return []
        token_R, logprob_R = batch.sampler.draw(logits_RV, [len(session.token_ids) for session in sessions])
        logprobs = logprob_R.tolist()
        if math.isnan(sum(logprobs)):
            raise AgentRLError(_DIVERGED)
        rows = zip(sessions, batch.requests, token_R.tolist(), logprobs, strict=True)
        done = [row[1] for row in rows if self._append(*row)]
        if not done and batch.packed.only_samples and len(sessions) == len(self._rows):
            batch.packed.advance(token_R)
            self._batch = batch
        return done

    def _append(self, session: Session, request: Request, token: int, logprob: float) -> bool:
        """Note a new token and return whether it is the request's last."""
        session.token_ids.append(token)
        request.sampled.append(token)
        request.logprobs.append(logprob)
        if not self._is_done(request):
            return False
        self.store.finish(session)
        self._rows.remove(session)
        return True

    def _is_done(self, request: Request) -> bool:
        request.stopped = self._stop_rule.applies(request.sampled, request.sampling.stop)
        return request.stopped or len(request.sampled) >= request.sampling.max_tokens
