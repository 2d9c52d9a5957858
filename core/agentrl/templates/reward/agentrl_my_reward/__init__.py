"""A reward that looks at how a trajectory ended, and at how long it took."""

from agentrl import PluginConfig, Reward, Trajectory
from pydantic import Field

__all__ = ["MyReward"]


class MyReward(Reward):
    """One for a success in few turns, less for every further turn, nothing for a failure."""

    class Config(PluginConfig):
        """Options: the reward's name stands before them in `--set rewards.NAME.turns=3`."""

        turns: int = Field(default=2, ge=1, description="turns that cost nothing")

    config: Config

    async def score(self, trajectory: Trajectory) -> float:
        """Return the score, from 0 to 1; a trajectory may also have been cut off before its first turn."""
        if trajectory.outcome is None or not trajectory.outcome.success:
            return 0.0
        return min(1.0, self.config.turns / max(1, len(trajectory.turns)))
