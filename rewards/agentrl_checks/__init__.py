"""How much of what the env checks is as it should be: a reward for parts of a task."""

from pydantic import Field

from agentrl.interfaces import PluginConfig, Reward
from agentrl.types import Trajectory


class Checks(Reward):
    """The share of the env's checks that passed, or a metric of the env; success, where it checks nothing."""

    class Config(PluginConfig):
        """Options."""

        metric: str | None = Field(
            default=None,
            description="a metric of the env to take instead, such as asked_fraction of appworld",
        )

    config: Config

    async def score(self, trajectory: Trajectory) -> float:
        """Return the share, 0 to 1, or the metric.

        Raises:
            ValueError: the env does not measure it.
        """
        outcome = trajectory.outcome
        if outcome is None:
            return 0.0
        if self.config.metric is not None:
            if self.config.metric not in outcome.metrics:
                known = ", ".join(outcome.metrics) or "nothing"
                raise ValueError(f"the env measures no {self.config.metric!r}; it measures: {known}")
            return outcome.metrics[self.config.metric]
        checks = len(outcome.passed) + len(outcome.failed)
        return len(outcome.passed) / checks if checks else float(outcome.success)
