"""Which of several engines serves a session: the same for all its turns, for there its tokens are cached."""


class Routes:
    """Sessions, and the engine of each."""

    def __init__(self, engines: int) -> None:
        """Take how many engines there are."""
        self._sessions = [0] * engines
        self._place: dict[str, int] = {}

    def of(self, session: str) -> int:
        """Return the engine of `session`; a new one gets the engine with the fewest."""
        place = self._place.get(session)
        if place is None:
            place = self._place[session] = self._sessions.index(min(self._sessions))
            self._sessions[place] += 1
        return place

    def forget(self, session: str) -> None:
        """Take note that `session` is over; unknown ones are fine."""
        place = self._place.pop(session, None)
        if place is not None:
            self._sessions[place] -= 1
