"""The curriculum for envs whose tasks already stand in the order in which they are to be learnt."""

from agentrl_uniform import Uniform

__all__ = ["InOrder"]


class InOrder(Uniform):
    """Go through the tasks in their order, over and over; the seed changes nothing."""

    def index(self, place: int) -> int:
        """Return which task is chosen at `place`; after the last comes the first."""
        return place % len(self._tasks)
