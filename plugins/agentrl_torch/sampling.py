"""Draws tokens so that a row's draw depends on its logits and its seed only, never on the rows beside it.

The random number of a token is a hash of (seed, position in the sequence): there is no generator whose
state other rows could advance. The token is found by inverting the cumulative distribution.

Shape letters: R rows, V vocabulary.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agentrl.types import Sampling


class Sampler:
    """The sampling settings of a fixed list of rows, as tensors."""

    def __init__(self, settings: Sequence[Sampling], device: torch.device) -> None:
        """Take the settings of R rows."""
        self._seeds_R = np.array([setting.seed & _MASK for setting in settings], dtype=np.uint64)
        temperature_R = torch.tensor([setting.temperature for setting in settings], device=device)
        top_p_R = torch.tensor([setting.top_p for setting in settings], device=device)
        self._truncates = any(setting.top_p < 1 for setting in settings)
        self._plain = not self._truncates and all(setting.temperature == 1 for setting in settings)
        self._greedy_R = temperature_R <= 0
        self._temperature_R1 = torch.where(self._greedy_R, 1, temperature_R).unsqueeze(1)
        # The likeliest token is kept even where top-p is 0.
        self._top_p_R1 = top_p_R.clamp(min=1e-9).unsqueeze(1)

    def draw(self, logits_RV: Tensor, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return a token (R,) for each row and its log-probability, nats, float32 (R,).

        `positions` are those of the tokens to be drawn. The log-probability is under the distribution that
        the token was drawn from, but without top-p; where the likeliest is taken, at temperature 1.
        """
        logits_RV = logits_RV.float()
        uniform_R1 = torch.from_numpy(uniform(self._seeds_R, positions)).to(logits_RV.device).unsqueeze(1)
        if self._plain:
            probs_RV = torch.softmax(logits_RV, dim=-1)
            token_R1 = _invert(probs_RV, uniform_R1)
            return token_R1.squeeze(1), probs_RV.gather(1, token_R1).log().squeeze(1)
        logprobs_RV = torch.log_softmax(logits_RV / self._temperature_R1, dim=-1)
        token_R1 = _invert(self._truncated(logprobs_RV.exp()), uniform_R1)
        token_R1 = torch.where(self._greedy_R.unsqueeze(1), logits_RV.argmax(-1, keepdim=True), token_R1)
        return token_R1.squeeze(1), logprobs_RV.gather(1, token_R1).squeeze(1)

    def _truncated(self, probs_RV: Tensor) -> Tensor:
        """Return the probabilities after top-p, which need not sum to 1."""
        if not self._truncates:
            return probs_RV
        sorted_RV, order_RV = probs_RV.sort(dim=-1, descending=True, stable=True)
        before_RV = sorted_RV.cumsum(-1, dtype=torch.float64) - sorted_RV
        kept_RV = (before_RV < self._top_p_R1) | (self._top_p_R1 >= 1)
        return torch.zeros_like(probs_RV).scatter_(1, order_RV, sorted_RV * kept_RV)


def _invert(probs_RV: Tensor, uniform_R1: Tensor) -> Tensor:
    """Return the first token (R, 1) whose cumulative probability exceeds the uniform number."""
    # In float64 a token of probability 0 can never be drawn, and rare ones get their due.
    cumulative_RV = probs_RV.cumsum(-1, dtype=torch.float64)
    threshold_R1 = uniform_R1 * cumulative_RV[:, -1:]
    token_R1 = torch.searchsorted(cumulative_RV, threshold_R1, right=True)
    # Beyond the end only where probabilities are not numbers.
    return token_R1.clamp_(max=probs_RV.shape[1] - 1)


_MASK = 2**64 - 1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniform(seeds_R: NDArray[np.uint64], positions: Sequence[int]) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each (seed, position), as if drawn at random (SplitMix64)."""
    state_R = _mix(seeds_R + _GOLDEN) + np.array(positions, dtype=np.uint64) * _GOLDEN
    return (_mix(state_R) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(state_R: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state_R = (state_R ^ (state_R >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state_R = (state_R ^ (state_R >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state_R ^ (state_R >> np.uint64(31))
