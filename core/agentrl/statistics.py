"""Means with confidence intervals, and pass@k: what an evaluation may claim."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, fmean
from typing import Any

Z95 = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over tasks with its 95% confidence interval; `count` is the number of tasks."""

    mean: float
    low: float
    high: float
    count: int

    @classmethod
    def from_json(cls, json: Mapping[str, Any]) -> "Estimate":
        """Return the estimate that is stored as `json`; what is null there was not finite."""
        bounds = {name: math.nan if json[name] is None else json[name] for name in ("mean", "low", "high")}
        return cls(**bounds, count=json["count"])


def estimate(per_task: Sequence[Sequence[float]], *, proportion: bool = False) -> Estimate:
    """Return the mean of the tasks' means; tasks, not trajectories, are what is drawn independently.

    Args:
        per_task: the values of each task's trajectories; tasks without any are left out.
        proportion: the values are shares of something, so that only 0 to 1 is possible.

    The interval is the normal one of the mean. A proportion's is Wilson's score interval (Wilson 1927,
    doi:10.1080/01621459.1927.10502953) if every task's mean is 0 or 1, else the normal one cut to 0 to 1.
    """
    means = [fmean(values) for values in per_task if values]
    if not means:
        return Estimate(math.nan, math.nan, math.nan, 0)
    if proportion and all(mean in (0, 1) for mean in means):
        return _wilson(means)
    found = _normal(means)
    return replace(found, low=max(0.0, found.low), high=min(1.0, found.high)) if proportion else found


def _wilson(means: Sequence[float]) -> Estimate:
    n, p = len(means), fmean(means)
    scale = 1 + Z95**2 / n
    center = (p + Z95**2 / (2 * n)) / scale
    spread = Z95 / scale * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2))
    return Estimate(p, max(0.0, center - spread), min(1.0, center + spread), n)


def _normal(means: Sequence[float]) -> Estimate:
    n, mean = len(means), fmean(means)
    if n == 1:
        return Estimate(mean, -math.inf, math.inf, 1)
    variance = sum((value - mean) ** 2 for value in means) / (n - 1)
    spread = Z95 * math.sqrt(variance / n)
    return Estimate(mean, mean - spread, mean + spread, n)


def combined(estimates: Sequence[Estimate], weights: Sequence[float]) -> Estimate:
    """Return the weighted mean of estimates of different tasks, with its 95% interval.

    Zou and Donner 2008, Construction of confidence limits about effect measures: a general approach,
    Statistics in Medicine 27:1693: squares of the distances to each bound add up.
    """
    total = sum(weights)
    mean = sum(weight * each.mean for weight, each in zip(weights, estimates, strict=True)) / total
    below, above = (
        math.hypot(*(weight * gap for weight, gap in zip(weights, gaps, strict=True))) / total
        for gaps in ([e.mean - e.low for e in estimates], [e.high - e.mean for e in estimates])
    )
    return Estimate(mean, mean - below, mean + above, sum(each.count for each in estimates))


def highest_rise(before: Estimate, now: Estimate) -> float:
    """Return the upper end of the 95% interval of a difference of means, `now` minus `before`.

    Newcombe 1998, Interval estimation for the difference between independent proportions, Statistics in
    Medicine 17:873, method 10. Where both are of the same tasks, the true interval is narrower.
    """
    return now.mean - before.mean + math.hypot(now.high - now.mean, before.mean - before.low)


def pass_at_k(attempts: int, successes: int, k: int) -> float:
    """Return the chance that at least one of k attempts succeeds, without bias.

    Chen et al. 2021, Evaluating Large Language Models Trained on Code, arXiv:2107.03374, eq. 1.
    """
    return 1 - math.comb(attempts - successes, k) / math.comb(attempts, k)


def pass_hat_k(attempts: int, successes: int, k: int) -> float:
    """Return the chance that all of k attempts succeed, without bias.

    Yao et al. 2024, tau-bench, arXiv:2406.12045, section 3: pass^k.
    """
    return math.comb(successes, k) / math.comb(attempts, k)
