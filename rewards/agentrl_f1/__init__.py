"""How many words the answer shares with a right one: token F1 as in SQuAD (arXiv 1606.05250)."""

from collections import Counter

from agentrl.interfaces import Reward
from agentrl.text import normalize_answer
from agentrl.types import Trajectory


class F1(Reward):
    """Token F1 of the answer, from 0 to 1; of several references the best counts."""

    needs_references = True

    async def score(self, trajectory: Trajectory) -> float:
        """Return the F1, 0 without an answer."""
        outcome = trajectory.outcome
        if outcome is None or outcome.answer is None:
            return 0.0
        answer = outcome.answer
        return max((f1(answer, reference) for reference in outcome.references), default=0.0)


def f1(answer: str, reference: str) -> float:
    """Return the harmonic mean of precision and recall over the words, counted with repetitions."""
    given, right = normalize_answer(answer).split(), normalize_answer(reference).split()
    if not given or not right:
        return float(given == right)
    shared = (Counter(given) & Counter(right)).total()
    return 2 * shared / (len(given) + len(right))
