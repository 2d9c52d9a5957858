"""Adds up what the micro-batches of an update report."""

import torch
from torch import Tensor

from agentrl.interfaces import Tokens
from agentrl_torch.micro_batch import MicroBatch


class Tally:
    """Means, extremes and counts over the tokens of an update."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._sums: dict[str, float] = {}
        self._lowest, self._highest = float("inf"), 0.0
        self._tokens = self._context = self._unique = 0
        self._trajectories = self._skipped = 0

    def skip(self, trajectories: int) -> None:
        """Take note of trajectories that need not be computed."""
        self._skipped += trajectories

    def add(self, tokens: Tokens, micro: MicroBatch) -> None:
        """Take note of a micro-batch on which the loss was computed."""
        for name, values_N in {"entropy": tokens.entropy, **tokens.logged}.items():
            self._add(name, values_N)
        ratio_N = self._ratio(tokens)
        self._add("kl_old", ratio_N - 1 - ratio_N.log())
        self._lowest = min(self._lowest, ratio_N.min().item())
        self._highest = max(self._highest, ratio_N.max().item())
        self._tokens += len(tokens.logprobs)
        self._context += sum(len(ids) for row in micro.rows for ids in row.sequences)
        self._unique += len(micro.trie)
        self._trajectories += len(micro.rows)

    def absorb(self, other: "Tally") -> None:
        """Take note of what another rank has seen."""
        for name, value in other._sums.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._lowest = min(self._lowest, other._lowest)
        self._highest = max(self._highest, other._highest)
        self._tokens += other._tokens
        self._context += other._context
        self._unique += other._unique
        self._trajectories += other._trajectories
        self._skipped += other._skipped

    def metrics(self) -> dict[str, float]:
        """Return what was found.

        `policy/...` are means over tokens and extremes; `kl_old` estimates, in nats, how far the update has
        led from the policy that sampled (k3 of KL(old || new); 0 in its first step). What the algorithm
        logs under a name with a slash keeps that name. `trainer/tokens` are the sampled ones whose loss was
        computed, `context_tokens` all that their trajectories hold, `unique_tokens` those that had to be
        computed, `sharing` the quotient of the two, and `skipped` the share of trajectories without any
        loss.
        """
        total = self._trajectories + self._skipped
        counts = {"trainer/tokens": float(self._tokens), "trainer/skipped": self._skipped / total}
        if not self._tokens:
            return counts
        named = {name if "/" in name else f"policy/{name}": value for name, value in self._sums.items()}
        return counts | {
            "trainer/context_tokens": float(self._context),
            "trainer/unique_tokens": float(self._unique),
            "trainer/sharing": self._context / self._unique,
            "policy/ratio_min": self._lowest,
            "policy/ratio_max": self._highest,
            **{name: value / self._tokens for name, value in named.items()},
        }

    def _add(self, name: str, values_N: Tensor) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + values_N.sum(dtype=torch.float64).item()

    @staticmethod
    def _ratio(tokens: Tokens) -> Tensor:
        return (tokens.logprobs.detach() - tokens.old_logprobs).exp()
