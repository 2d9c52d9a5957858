"""Whether the answer is one of the right ones, word for word, after SQuAD's normalisation."""

from agentrl.interfaces import Reward
from agentrl.text import matches_exactly
from agentrl.types import Trajectory


class ExactMatch(Reward):
    """1 if the answer equals a reference after normalisation (see `agentrl.text`), else 0."""

    needs_references = True

    async def score(self, trajectory: Trajectory) -> float:
        """Return 1 or 0."""
        outcome = trajectory.outcome
        return float(outcome is not None and matches_exactly(outcome.answer, outcome.references))
