"""Decides what is kept: which session owns which slot, which prefixes are shared, who is forgotten.

Sharing is found by content. Requests that arrive together and begin alike get a prefix, which is computed
once; a request that begins like something already read gets a copy of its keys and values as a
prefix, so that episodes of a group may come in one by one.
"""

from collections.abc import Iterator, Sequence
from itertools import count

from torch import Tensor

from agentrl_torch.kv_cache import CacheSpec, Tails
from agentrl_torch.sequences import Prefix, Request, Session, common_length


class SessionStore:
    """All sessions and prefixes of an engine, and the storage of their keys and values."""

    def __init__(self, spec: CacheSpec, min_shared: int, budget: int) -> None:
        """Begin empty.

        Args:
            spec: what a token takes to store.
            min_shared: the shortest prefix worth sharing, in tokens.
            budget: over this many kept tokens, idle sessions are forgotten, least recently used first.
        """
        self.tails = Tails(spec)
        self.sessions: dict[str, Session] = {}
        self.prefixes: list[Prefix] = []
        self._spec = spec
        self._min_shared = min_shared
        self._budget = budget
        self._serial = count()
        self._clock = count()

    def open(self, requests: Sequence[Request]) -> list[Session]:
        """Return the session of each request, with all that can be reused of what was read before."""
        sessions = [self._enter(request) for request in requests]
        self._share([session for session in sessions if session.computed == 0])
        self._sweep()
        self._evict()
        ends = [len(session.token_ids) - session.start + session.room for session in sessions]
        self.tails.reserve(max(ends, default=0))
        return sessions

    def finish(self, session: Session) -> None:
        """Note that the session's request is done; what it read stays, unless it was released meanwhile."""
        session.request = None
        session.used = next(self._clock)
        if session.released:
            self.release(session.name)

    def release(self, name: str) -> None:
        """Forget a session, at once or as soon as its request is done."""
        session = self.sessions.get(name)
        if session is None:
            return
        if session.request is not None:
            session.released = True
            return
        self._forget(session)
        self._sweep()

    def clear(self) -> None:
        """Forget everything; no request may be in work."""
        for session in list(self.sessions.values()):
            self._forget(session)
        self.prefixes.clear()

    # Entering and leaving

    def _enter(self, request: Request) -> Session:
        session = self.sessions.get(request.session)
        if session is None:
            session = self.sessions[request.session] = Session(request.session, self.tails.take())
        self._rewind(session, request.token_ids)
        session.token_ids = list(request.token_ids)
        session.request = request
        return session

    def _rewind(self, session: Session, token_ids: list[int]) -> None:
        """Keep what `token_ids` begins with; at least its last token is read anew, for its logits."""
        kept = min(common_length(session.token_ids, token_ids), session.computed, len(token_ids) - 1)
        if kept < max(session.start, min(self._min_shared, session.computed)):
            self._attach(session, None)
            kept = 0
        session.computed = kept

    def _attach(self, session: Session, prefix: Prefix | None) -> None:
        if session.prefix is not None:
            session.prefix.users -= 1
        if prefix is not None:
            prefix.users += 1
        session.prefix = prefix
        session.computed = session.start

    def _forget(self, session: Session) -> None:
        self._attach(session, None)
        self.tails.give_back(session.slot)
        del self.sessions[session.name]

    def _sweep(self) -> None:
        """Drop the prefixes that nobody follows."""
        # Children come after their parents, so backwards one pass is enough.
        for prefix in list(reversed(self.prefixes)):
            if prefix.users == 0:
                self.prefixes.remove(prefix)
                if prefix.parent is not None:
                    prefix.parent.users -= 1

    def _evict(self) -> None:
        kept = sum(len(s.token_ids) - s.start for s in self._sequences())
        if kept <= self._budget:
            return
        idle = sorted((s for s in self.sessions.values() if s.request is None), key=lambda s: s.used)
        for session in idle:
            if kept <= self._budget:
                break
            kept -= len(session.token_ids) - session.start
            self._forget(session)
        self._sweep()

    # Sharing

    def _share(self, fresh: list[Session]) -> None:
        """Give sessions of which nothing is kept the prefixes that they have in common."""
        for session in fresh:
            self._attach(session, self._longest_prefix(session.token_ids))
        parents = {id(session.prefix): session.prefix for session in fresh}
        for key, parent in parents.items():
            members = [session for session in fresh if id(session.prefix) == key]
            self._split(sorted(members, key=lambda session: session.token_ids), parent)
        for session in fresh:
            self._borrow(session)

    def _longest_prefix(self, token_ids: list[int]) -> Prefix | None:
        fitting = [p for p in self.prefixes if _begins_with(token_ids, p.token_ids)]
        return max(fitting, key=lambda prefix: len(prefix.token_ids), default=None)

    def _split(self, members: list[Session], parent: Prefix | None) -> None:
        """Make prefixes for all runs of sorted `members` that go on alike after `parent`."""
        while members:
            first, least = members[0], members[0].start + self._min_shared
            lengths = [_shareable(first.token_ids, first.token_ids)]
            for member in members[1:]:
                lengths.append(_shareable(first.token_ids, member.token_ids))
                if lengths[-1] < least:
                    lengths.pop()
                    break
            alike = len(lengths)
            if alike > 1:
                prefix = self._add_prefix(first.token_ids[: min(lengths)], parent)
                for member in members[:alike]:
                    self._attach(member, prefix)
                self._split(members[:alike], prefix)
            members = members[alike:]

    def _borrow(self, session: Session) -> None:
        """Share what a session that has read more than the known prefixes has in common with another."""
        if session.prefix is not None and not session.prefix.ready:
            return
        length = self._best_donor(session.token_ids, session.start)[1]
        if length:
            self._attach(session, self._add_prefix(session.token_ids[:length], session.prefix))

    def _add_prefix(self, token_ids: list[int], parent: Prefix | None) -> Prefix:
        start = len(parent.token_ids) if parent else 0
        length = len(token_ids) - start
        path = (*(parent.path if parent else ()), next(self._serial))
        keys, values = self._spec.keys(1, length=length), self._spec.values(1, length=length)
        prefix = Prefix(token_ids, parent, path, keys, values, computed=start)
        if parent is not None:
            parent.users += 1
        self._copy_from_donor(prefix)
        self.prefixes.append(prefix)
        return prefix

    def _best_donor(self, token_ids: list[int], start: int) -> tuple[Session | Prefix | None, int]:
        """Return who has read most of `token_ids`, and how much; (None, 0) if not worth copying."""
        least = start + self._min_shared
        best: tuple[Session | Prefix | None, int] = (None, 0)
        beginning = token_ids[:least]
        for donor in self._sequences() if len(token_ids) > least else []:
            if donor.token_ids[:least] == beginning and donor.available >= least:
                length = min(common_length(token_ids[:-1], donor.token_ids), donor.available)
                best = max(best, (donor, length), key=lambda pair: pair[1])
        return best

    def _sequences(self) -> list[Session | Prefix]:
        return [*self.sessions.values(), *self.prefixes]

    def _copy_from_donor(self, prefix: Prefix) -> None:
        donor, length = self._best_donor([*prefix.token_ids, -1], prefix.start)
        if donor is None:
            return
        for start, keys, values in self._pieces(donor):
            stop = min(start + keys[0].shape[2], length)
            begin = max(start, prefix.start)
            if begin < stop:
                _copy(prefix.keys, keys, begin - prefix.start, begin - start, stop - begin)
                _copy(prefix.values, values, begin - prefix.start, begin - start, stop - begin)
        prefix.computed = length

    def _pieces(self, donor: Session | Prefix) -> Iterator[tuple[int, list[Tensor], list[Tensor]]]:
        """Yield the first position, keys and values, (1, K, L, D) a layer, of each part of a sequence."""
        last = donor.prefix if isinstance(donor, Session) else donor
        for prefix in last.chain() if last else []:
            yield prefix.start, prefix.keys, prefix.values
        if isinstance(donor, Session):
            yield donor.start, *self.tails.of_slot(donor.slot)


def _begins_with(token_ids: list[int], prefix: list[int]) -> bool:
    """Return whether `token_ids` is `prefix` and more."""
    length = len(prefix)
    return length < len(token_ids) and token_ids[length - 1] == prefix[-1] and token_ids[:length] == prefix


def _shareable(left: list[int], right: list[int]) -> int:
    """Return how many leading tokens both can share; the last is each one's own, for its logits."""
    return min(common_length(left, right), len(left) - 1, len(right) - 1)


def _copy(target: list[Tensor], source: list[Tensor], to: int, at: int, length: int) -> None:
    for target_BKLD, source_BKLD in zip(target, source, strict=True):
        target_BKLD[:, :, to : to + length] = source_BKLD[:, :, at : at + length]
