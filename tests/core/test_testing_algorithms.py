"""The conformance kit for algorithms."""

from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any, cast

import pytest

from agentrl import Algorithm, Batch, Credit, Group, Tokens
from agentrl.testing import RulesBroken, check_algorithm
from agentrl.types import Need

torch = pytest.importorskip("torch")

if TYPE_CHECKING:
    from torch import Tensor


class Baseline(Algorithm):
    """The reward less the group's mean, and the score-function gradient."""

    def credit(self, batch: Batch) -> list[list[Credit]]:
        return [self.of_group(group) for group in batch.groups]

    def of_group(self, group: Group) -> list[Credit]:
        return [
            Credit([trajectory.reward - fmean(group.rewards)] * trajectory.sampled)
            for trajectory in group.trajectories
        ]

    def loss(self, tokens: Tokens) -> "Tensor":
        tokens.log("ratio", (tokens.logprobs - tokens.old_logprobs).exp())
        return -tokens.advantages * tokens.logprobs


class Critic(Baseline):
    """Has a critic, and a penalty for drifting."""

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({"values", "reference"})

    def of_group(self, group: Group) -> list[Credit]:
        return [
            Credit([trajectory.reward] * trajectory.sampled, [trajectory.reward] * trajectory.sampled)
            for trajectory in group.trajectories
        ]

    def loss(self, tokens: Tokens) -> "Tensor":
        assert tokens.values is not None
        assert tokens.returns is not None
        assert tokens.reference_logprobs is not None
        drift = (tokens.logprobs - tokens.reference_logprobs) ** 2
        return super().loss(tokens) + drift + (tokens.values - tokens.returns) ** 2


class CriticOfFirstTokens(Critic):
    """Its critic learns nothing from most tokens."""

    def of_group(self, group: Group) -> list[Credit]:
        return [
            Credit([t.reward] * t.sampled, [t.reward, *[float("nan")] * (t.sampled - 1)][: t.sampled])
            for t in group.trajectories
        ]


class StopsGradients(Baseline):
    """Right, but not what finite differences say."""

    def loss(self, tokens: Tokens) -> "Tensor":
        return -tokens.advantages * tokens.logprobs.exp().detach() * tokens.logprobs


class OneNumberATrajectory(Baseline):
    def of_group(self, group: Group) -> list[Credit]:
        return [Credit([trajectory.reward]) for trajectory in group.trajectories]


class DropsHopelessGroups(Baseline):
    def credit(self, batch: Batch) -> list[list[Credit]]:
        return [self.of_group(group) for group in batch.groups if len(set(group.rewards)) > 1]


class GivesNothing(Baseline):
    def credit(self, batch: Batch) -> list[list[Credit]]:
        return cast(Any, None)


class DividesByZero(Baseline):
    def of_group(self, group: Group) -> list[Credit]:
        return [
            Credit([(trajectory.reward - fmean(group.rewards)) / pstdev(group.rewards)] * trajectory.sampled)
            for trajectory in group.trajectories
        ]


class IsNotANumber(Baseline):
    def of_group(self, group: Group) -> list[Credit]:
        return [Credit([float("nan")] * trajectory.sampled) for trajectory in group.trajectories]


class ComparesWithTheFirst(Baseline):
    def of_group(self, group: Group) -> list[Credit]:
        return [
            Credit([trajectory.reward - group.rewards[0]] * trajectory.sampled)
            for trajectory in group.trajectories
        ]


class ComparesWithBothEnds(Baseline):
    """Notices no group that is turned round."""

    def of_group(self, group: Group) -> list[Credit]:
        baseline = (group.rewards[0] + group.rewards[-1]) / 2
        return [
            Credit([trajectory.reward - baseline] * trajectory.sampled) for trajectory in group.trajectories
        ]


class ComparesWithTheGroupBefore(Baseline):
    def credit(self, batch: Batch) -> list[list[Credit]]:
        before = [fmean(batch.groups[index - 1].rewards) for index in range(len(batch.groups))]
        return [
            [Credit([trajectory.reward - mean] * trajectory.sampled) for trajectory in group.trajectories]
            for group, mean in zip(batch.groups, before, strict=True)
        ]


class ForgetsSegments(Baseline):
    def of_group(self, group: Group) -> list[Credit]:
        return [
            Credit([trajectory.reward] * sum(segment.sampled for segment in trajectory.segments[:1]))
            for trajectory in group.trajectories
        ]


class ExpectsASpanATurn(Baseline):
    def of_group(self, group: Group) -> list[Credit]:
        return [
            Credit(
                [
                    trajectory.reward
                    for span, _ in zip(trajectory.spans, trajectory.turns, strict=False)
                    for _ in span.logprobs
                ]
            )
            for trajectory in group.trajectories
        ]


class ExpectsAnActionATurn(Baseline):
    def of_group(self, group: Group) -> list[Credit]:
        return [
            Credit(
                [
                    trajectory.reward * len(trajectory.turns[span.turn].action.text)
                    for span in trajectory.spans
                    for _ in span.logprobs
                ]
            )
            for trajectory in group.trajectories
        ]


class RunningMean(Baseline):
    seen: list[float] = []

    def of_group(self, group: Group) -> list[Credit]:
        self.seen.extend(group.rewards)
        return [
            Credit([trajectory.reward - fmean(self.seen)] * trajectory.sampled)
            for trajectory in group.trajectories
        ]


class OwnRunningMean(RunningMean):
    """Knows what the same instance has seen."""

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.seen = []


class FollowsItsRatio(Baseline):
    """Scales its loss by what the micro-batches before were like."""

    scale = 1.0

    def loss(self, tokens: Tokens) -> "Tensor":
        loss = self.scale * super().loss(tokens)
        self.scale *= float((tokens.logprobs.detach() - tokens.old_logprobs).exp().mean())
        return loss


class Whitens(Baseline):
    def of_group(self, group: Group) -> list[Credit]:
        mean = fmean(group.rewards)
        for trajectory in group.trajectories:
            trajectory.reward -= mean
        return super().of_group(group)


class ReadsValuesUndeclared(Baseline):
    def credit(self, batch: Batch) -> list[list[Credit]]:
        values: Any = batch.values
        return [[Credit(list(numbers)) for numbers in group] for group in values]


class ReturnsWithoutACritic(Critic):
    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({"reference"})


class CriticWithoutReturns(Critic):
    def of_group(self, group: Group) -> list[Credit]:
        return [Credit([1.0] * trajectory.sampled) for trajectory in group.trajectories]


class AveragesItself(Baseline):
    def loss(self, tokens: Tokens) -> "Tensor":
        return super().loss(tokens).mean()


class ReadsTheReferenceUndeclared(Baseline):
    def loss(self, tokens: Tokens) -> "Tensor":
        reference: Any = tokens.reference_logprobs
        return tokens.logprobs - reference


class TakesTheLogarithmOfZero(Baseline):
    def loss(self, tokens: Tokens) -> "Tensor":
        return (tokens.logprobs * 0).log()


class LearnsNothing(Baseline):
    def loss(self, tokens: Tokens) -> "Tensor":
        return -tokens.advantages * tokens.logprobs.detach()


class LearnsTheOpposite(Baseline):
    def of_group(self, group: Group) -> list[Credit]:
        return [
            Credit([fmean(group.rewards) - trajectory.reward] * trajectory.sampled)
            for trajectory in group.trajectories
        ]


class HasItsSignTurnedRound(Baseline):
    def loss(self, tokens: Tokens) -> "Tensor":
        return tokens.advantages * tokens.logprobs


class HasAWildGradient(Baseline):
    def loss(self, tokens: Tokens) -> "Tensor":
        return (tokens.logprobs * 0).abs().sqrt()


class ComputesInHalf(Baseline):
    def loss(self, tokens: Tokens) -> "Tensor":
        ratio = (tokens.logprobs - tokens.old_logprobs).half().exp().to(tokens.logprobs.dtype)
        return -tokens.advantages * ratio


class MultipliesRatios(Baseline):
    """Takes the ratio of a whole trajectory, up to where it is clipped; 0 times infinity is no gradient."""

    def loss(self, tokens: Tokens) -> "Tensor":
        gap = tokens.logprobs - tokens.old_logprobs
        ratio = gap.new_zeros(tokens.trajectories).index_add(0, tokens.trajectory, gap).exp()
        ratio = ratio.where(ratio < 10, ratio.new_tensor(10.0))
        return -tokens.advantages * ratio[tokens.trajectory]


class NormalisesInTheLoss(Baseline):
    def loss(self, tokens: Tokens) -> "Tensor":
        centred = tokens.advantages - tokens.advantages.mean()
        return -centred * tokens.logprobs


class ScalesInPlace(Baseline):
    def loss(self, tokens: Tokens) -> "Tensor":
        tokens.advantages.mul_(0.5)
        return super().loss(tokens)


@pytest.mark.parametrize("algorithm", [Baseline, Critic, CriticOfFirstTokens])
def test_a_good_algorithm_passes(algorithm: type[Algorithm]) -> None:
    check_algorithm(algorithm)


def test_a_loss_that_stops_gradients_on_purpose_passes_if_it_says_so() -> None:
    with pytest.raises(RulesBroken, match=r"has the gradient it should: .* disagree.*; .*gradcheck=False"):
        check_algorithm(StopsGradients)
    check_algorithm(StopsGradients, gradcheck=False)


@pytest.mark.parametrize(
    ("algorithm", "rule", "remedy"),
    [
        (OneNumberATrajectory, "credits every sampled token: .* 1 numbers for", "spread your credit"),
        (DropsHopelessGroups, "credits every sampled token: .* 0 groups for 2", "a number per sampled token"),
        (GivesNothing, "raises nothing: reading the credit", "list of lists of agentrl.Credit"),
        (DividesByZero, "raises nothing: credit of .* raised ZeroDivisionError", "handle every batch"),
        (IsNotANumber, "gives finite credit: .*nan", "guard divisions"),
        (ForgetsSegments, "credits every sampled token: .* numbers for", "over all sampled tokens"),
        (ExpectsASpanATurn, "credits every sampled token: .* numbers for", "over all sampled tokens"),
        (
            ExpectsAnActionATurn,
            "raises nothing: credit of a group in which a trajectory has tokens of a turn without an action "
            "raised IndexError",
            "handle every batch",
        ),
        (ComparesWithTheFirst, "is fair: .* the trajectories of each group came in", "its whole group"),
        (ComparesWithBothEnds, "is fair: .* the trajectories of each group came in", "its whole group"),
        (ComparesWithTheGroupBefore, "is fair: .* when the groups came in another order", "or batch"),
        (RunningMean, "is deterministic", "derive randomness"),
        (OwnRunningMean, "keeps no state: a batch got different credit", "nothing of it in the instance"),
        (FollowsItsRatio, "keeps no state: a token got a different loss", "nothing of them in the instance"),
        (Whitens, "leaves batches alone", "copy what you change"),
        (ReadsValuesUndeclared, "raises nothing: credit of .* raised TypeError", "name all that you read"),
        (ReturnsWithoutACritic, "gives returns to critics: returns without the need 'values'", "exactly if"),
        (CriticWithoutReturns, "gives returns to critics: no returns", "exactly if"),
        (AveragesItself, r"has a loss per token: the loss of 8 tokens is a tensor \(\)", "the trainer sums"),
        (
            ReadsTheReferenceUndeclared,
            "raises nothing: loss of .* raised TypeError",
            "name all that you read",
        ),
        (TakesTheLogarithmOfZero, "has finite losses", "guard logarithms"),
        (LearnsNothing, "can be learnt from: the loss does not depend", "without detaching"),
        (HasAWildGradient, "can be learnt from: the gradient of the loss of 8 tokens is .*nan", "by no zero"),
        (ComputesInHalf, r"has finite losses: the loss of tokens that became e\^20 .*inf", "exponentials"),
        (
            MultipliesRatios,
            r"can be learnt from: the gradient of the loss of tokens that became e\^20 .*nan",
            "clamp what is exponentiated",
        ),
        (LearnsTheOpposite, "learns which arm pays: .* with probability 0.0", "look for a sign"),
        (HasItsSignTurnedRound, "learns which arm pays: .* with probability 0.0", "look for a sign"),
        (NormalisesInTheLoss, "weighs each trajectory alone", "normalise in credit"),
        (ScalesInPlace, "leaves tokens alone: loss changed tokens.advantages", "no in-place"),
    ],
)
def test_a_bad_algorithm_is_told_what_is_wrong(algorithm: type[Algorithm], rule: str, remedy: str) -> None:
    with pytest.raises(RulesBroken, match=f"{rule}.*; .*{remedy}"):
        check_algorithm(algorithm)
