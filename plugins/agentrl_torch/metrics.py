"""Adds up what the micro-batches of an update report."""

from collections.abc import Sequence

import torch
from torch import Tensor

from agentrl.interfaces import Tokens
from agentrl_torch.micro_batch import MicroBatch


class Tally:
    """Means, extremes and counts over the tokens of an update."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._sums: dict[str, float] = {}
        self._tokens = 0
        self._lowest = float("inf")
        self._highest = 0.0

    def add(self, tokens: Tokens) -> None:
        """Take note of a micro-batch on which the loss was computed."""
        logged = {"entropy": tokens.entropy, **tokens.logged}
        for name, values_N in logged.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(values_N.sum(dtype=torch.float64))
        self._tokens += len(tokens.logprobs)
        ratio_N = self._ratio(tokens)
        self._lowest = min(self._lowest, float(ratio_N.min()))
        self._highest = max(self._highest, float(ratio_N.max()))

    def metrics(self) -> dict[str, float]:
        """Return the numbers under `policy/`; a name with a slash is kept as it is."""
        named = {name if "/" in name else f"policy/{name}": total for name, total in self._sums.items()}
        means = {name: total / self._tokens for name, total in named.items()}
        return means | {"policy/ratio_min": self._lowest, "policy/ratio_max": self._highest}

    @staticmethod
    def _ratio(tokens: Tokens) -> Tensor:
        return (tokens.logprobs.detach() - tokens.old_logprobs).exp()


def sizes(micros: Sequence[MicroBatch]) -> dict[str, float]:
    """Return how many tokens an update trains on, and how much it saves by computing shared ones once.

    `tokens` were sampled; `context_tokens` are all that their trajectories hold, and `unique_tokens` all that
    are computed; `sharing` is the quotient of the two.
    """
    rows = [row for micro in micros for row in micro.rows]
    context = sum(len(ids) for row in rows for ids in row.sequences)
    unique = sum(len(micro.trie) for micro in micros)
    numbers = {
        "tokens": sum(len(row.targets_N) for row in rows),
        "context_tokens": context,
        "unique_tokens": unique,
        "sharing": context / unique,
    }
    return {f"trainer/{name}": float(number) for name, number in numbers.items()}
