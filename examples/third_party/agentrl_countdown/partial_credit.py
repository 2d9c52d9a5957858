"""A reward for any env that names its checks: half right is worth half.

Success comes seldom where a task has many parts, and then there is little to learn from.
"""

from agentrl import Reward, Trajectory


class PartialCredit(Reward):
    """The share of the outcome's checks that were passed."""

    async def score(self, trajectory: Trajectory) -> float:
        """Return the share, from 0 to 1; without checks, 1 for success and 0 for failure."""
        outcome = trajectory.outcome
        if outcome is None:
            return 0.0
        checks = len(outcome.passed) + len(outcome.failed)
        return len(outcome.passed) / checks if checks else float(outcome.success)
