"""How the losses of single tokens become one number.

Every mode is a weight per trajectory that its tokens share, with denominators counted over the whole
update: micro-batches and ranks can then simply add up their weighted sums.
"""

from collections.abc import Sequence

from agentrl.errors import UsageError
from agentrl.interfaces import Aggregation


def token_weights(lengths: Sequence[int], aggregation: Aggregation) -> list[float]:
    """Return the weight of each trajectory's tokens, given how many tokens each has sampled.

    Modes:
        token-mean: the mean over all tokens (DAPO, Yu et al. 2025, arXiv:2503.14476, eq. 8).
        seq-mean-token-mean: the mean over trajectories of the mean over their tokens (GRPO, Shao et al.
            2024, arXiv:2402.03300, eq. 3).
        seq-mean-token-sum: the mean over trajectories of the sum over their tokens.
        constant: the sum over tokens, divided by `length` and by the number of trajectories
            (Dr.GRPO, Liu et al. 2025, arXiv:2503.20783).

    Trajectories without a sampled token leave the denominators; their weight is 0.
    """
    count = sum(1 for length in lengths if length)
    match aggregation.mode:
        case "token-mean":
            return [1 / sum(lengths) if length else 0.0 for length in lengths]
        case "seq-mean-token-mean":
            return [1 / (count * length) if length else 0.0 for length in lengths]
        case "seq-mean-token-sum":
            return [1 / count if length else 0.0 for length in lengths]
        case "constant":
            if not aggregation.length:
                raise UsageError("aggregation 'constant' needs a length to divide by, in tokens")
            return [1 / (count * aggregation.length) if length else 0.0 for length in lengths]
