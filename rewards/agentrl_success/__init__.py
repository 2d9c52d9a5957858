"""Whether the env judges the task solved."""

from agentrl.interfaces import Reward
from agentrl.types import Trajectory


class Success(Reward):
    """1 if the env's own verdict is success, else 0."""

    async def score(self, trajectory: Trajectory) -> float:
        """Return 1 or 0."""
        return float(trajectory.outcome is not None and trajectory.outcome.success)
