"""Whether the answer contains a right one: a metric to watch, not a reward to learn from.

A long answer that names every candidate scores 1; a model that is paid for this learns to write one.
"""

from agentrl.interfaces import Reward
from agentrl.text import normalize_answer
from agentrl.types import Trajectory


class CoverEM(Reward):
    """1 if a normalised reference is a substring of the normalised answer, else 0."""

    needs_references = True

    async def score(self, trajectory: Trajectory) -> float:
        """Return 1 or 0."""
        outcome = trajectory.outcome
        if outcome is None or outcome.answer is None:
            return 0.0
        answer = normalize_answer(outcome.answer)
        references = filter(None, map(normalize_answer, outcome.references))
        return float(any(reference in answer for reference in references))
