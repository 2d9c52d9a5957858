"""The rules of algorithms: of their credit here, and, where torch is installed, of their `losses`."""

import copy
import importlib.util
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any, TypeAlias

from agentrl.interfaces import Algorithm
from agentrl.testing.rules import Report, Rule, RuleBroken, judge_by, left_out, name_of, no_exception
from agentrl.testing.samples import make_groups, make_trajectory
from agentrl.types import Batch, Credit, Group, Trajectory

TOLERANCE = 1e-9
MIXED: tuple[tuple[float, ...], ...] = ((1.0, 0.0, 0.5, -2.0), (0.0, 0.0, 1.0), (0.25, 0.75))
OTHERS: tuple[tuple[float, ...], ...] = ((0.0, 1.0, 1.0), (3.0, 0.0, 0.0, 2.0))
# Of a trajectory: the index of its group, and its own in that.
Place: TypeAlias = tuple[int, int]


def check_algorithm(
    make: Callable[[], Algorithm], gradcheck: bool = True, report: Report | None = None
) -> None:
    """Hold an algorithm to the rules of its kind; those of the loss are skipped where torch is missing.

    Args:
        make: the class, or a function that returns an instance with the options to test.
        gradcheck: whether to compare the gradient of the loss with finite differences. Turn it off for
            a loss that holds part of itself constant on purpose (`detach`).
        report: told of each rule, as soon as it was tried.

    Raises:
        RulesBroken: with all rules that it breaks.
    """
    __tracebackhide__ = True
    judge_by((*CREDIT_RULES, *_loss_rules(gradcheck)), AlgorithmUnderTest(make), name_of(make), report)


def _loss_rules(gradcheck: bool) -> "Sequence[Rule[AlgorithmUnderTest]]":
    if not importlib.util.find_spec("torch"):
        return (left_out("has a loss to learn from", "torch is not installed"),)
    from agentrl.testing import bandit, losses

    gradient: Rule[AlgorithmUnderTest] = losses.has_the_gradient_it_should
    if not gradcheck:
        gradient = left_out(gradient.__name__, "part of its loss is constant on purpose: gradcheck=False")
    return (*losses.RULES, gradient, bandit.learns_which_arm_pays)


@dataclass(frozen=True, slots=True)
class AlgorithmUnderTest:
    """Makes algorithms and asks them for credit and loss."""

    make: Callable[[], Algorithm]

    def new(self) -> Algorithm:
        """Return a fresh algorithm."""
        with no_exception(
            "making the algorithm", "let it be made without options, or check a function that does"
        ):
            return self.make()

    def credit(
        self, groups: list[Group], what: str, algorithm: Algorithm | None = None
    ) -> list[list[Credit]]:
        """Return the credit of groups by a fresh algorithm, or by this one, held to shape and finiteness."""
        algorithm = self.new() if algorithm is None else algorithm
        with no_exception(
            f"credit of {what}", "handle every batch of groups, and name all that you read of it in `needs`"
        ):
            credits = algorithm.credit(make_batch(algorithm, groups))
        with no_exception(f"reading the credit of {what}", "return a list of lists of agentrl.Credit"):
            _check_shape(credits, groups, "values" in algorithm.needs, what)
        return credits


def make_batch(algorithm: Algorithm, groups: list[Group]) -> Batch:
    """Return a batch with the facts that `algorithm` needs, and no others."""
    needs = algorithm.needs

    def facts(shift: float) -> list[list[Sequence[float]]]:
        return [[_facts(trajectory, shift) for trajectory in group.trajectories] for group in groups]

    return Batch(
        groups,
        logprobs=facts(0.0),
        reference_logprobs=facts(-0.1) if "reference" in needs else None,
        values=facts(1.0) if "values" in needs else None,
    )


def _facts(trajectory: Trajectory, shift: float) -> list[float]:
    return [logprob + shift for span in trajectory.spans for logprob in span.logprobs]


def _check_shape(credits: Any, groups: list[Group], critic: bool, what: str) -> None:
    rule = "credits every sampled token"
    remedy = "return credits[group][trajectory], a number per sampled token"
    if len(credits) != len(groups):
        raise RuleBroken(rule, f"credit of {what}: {len(credits)} groups for {len(groups)}", remedy)
    for given, group in zip(credits, groups, strict=True):
        if len(given) != len(group.trajectories):
            found = f"credit of {what}: {len(given)} trajectories for {len(group.trajectories)}"
            raise RuleBroken(rule, found, remedy)
        for credit, trajectory in zip(given, group.trajectories, strict=True):
            _check_credit(credit, trajectory.sampled, critic, what)


def _check_credit(credit: Credit, sampled: int, critic: bool, what: str) -> None:
    if (credit.returns is not None) != critic:
        found = "returns without the need 'values'" if not critic else "no returns for the critic"
        raise RuleBroken("gives returns to critics", found, "give returns exactly if `needs` holds 'values'")
    # A return may be NaN, where the critic is not to learn any.
    targets = None if credit.returns is None else [0.0 if math.isnan(x) else x for x in credit.returns]
    for numbers in (credit.advantages, targets):
        if numbers is None:
            continue
        if len(numbers) != sampled:
            found = f"credit of {what}: {len(numbers)} numbers for {sampled} sampled tokens"
            raise RuleBroken(
                "credits every sampled token", found, "spread your credit over all sampled tokens"
            )
        if not all(math.isfinite(number) for number in numbers):
            found = f"credit of {what} is {list(numbers)}"
            raise RuleBroken(
                "gives finite credit", found, "guard divisions, by a standard deviation of 0 for one"
            )


def credits_every_token(subject: AlgorithmUnderTest) -> None:
    """There is a finite number for each sampled token, in groups of many, few and one."""
    subject.credit(make_groups(MIXED), "three groups of different sizes")
    subject.credit(make_groups([[1.0], [0.0]]), "groups of one")
    subject.credit(make_groups([[1.0] * 4, [0.0] * 4]), "groups whose rewards are all equal")
    for trajectory, what in (
        (make_trajectory((), None, False, stop="max_tokens", lengths=()), "has no tokens"),
        (make_trajectory(("go",), None, False, stop="max_tokens"), "has tokens of a turn without an action"),
    ):
        groups = make_groups([[1.0, 0.0]])
        groups[0].trajectories.append(trajectory)
        subject.credit(groups, f"a group in which a trajectory {what}")


def is_fair(subject: AlgorithmUnderTest) -> None:
    """Credit does not depend on the order of groups, nor of the trajectories in a group."""
    groups = make_groups(MIXED)
    straight = subject.credit(groups, "three groups")
    for what, order in _orders(groups):
        turned = [Group(groups[row[0][0]].task, [groups[g].trajectories[m] for g, m in row]) for row in order]
        given = subject.credit(turned, f"three groups, {what} in another order,")
        if not _all_close([[straight[g][m] for g, m in row] for row in order], given):
            raise RuleBroken(
                "is fair",
                f"a trajectory's credit changed when {what} came in another order",
                "compare a trajectory with its whole group or batch, wherever it stands in it",
            )


def _orders(groups: list[Group]) -> Iterator[tuple[str, list[list[Place]]]]:
    """Yield all orders: what they are of, and, by group, the place where each trajectory was before."""
    places = [[(g, m) for m in range(len(group.trajectories))] for g, group in enumerate(groups)]
    of_groups = [[list(row) for row in permutations(members)] for members in places]
    for number in range(max(map(len, of_groups))):
        yield "the trajectories of each group", [rows[number % len(rows)] for rows in of_groups]
    for order in permutations(places):
        yield "the groups", list(order)


def is_deterministic(subject: AlgorithmUnderTest) -> None:
    """The same batch gets the same credit, and asking changes nothing in it."""
    groups = make_groups(MIXED)
    before = copy.deepcopy(groups)
    first, again = (subject.credit(groups, "three groups") for _ in range(2))
    if groups != before:
        raise RuleBroken("leaves batches alone", "credit changed the trajectories", "copy what you change")
    if not _all_close(first, again):
        remedy = "derive randomness from the trajectories' seeds, so that a resumed run goes on the same"
        raise RuleBroken("is deterministic", "the same batch got different credit", remedy)


def keeps_no_state(subject: AlgorithmUnderTest) -> None:
    """An algorithm that has seen another batch gives the same credit as before."""
    algorithm = subject.new()
    first = subject.credit(make_groups(MIXED), "three groups", algorithm)
    subject.credit(make_groups(OTHERS), "two groups", algorithm)
    again = subject.credit(make_groups(MIXED), "three groups, after two", algorithm)
    if not _all_close(first, again):
        raise RuleBroken(
            "keeps no state",
            "a batch got different credit after another batch",
            "compute credit from the batch alone, and keep nothing of it in the instance",
        )


def _all_close(one: list[list[Credit]], other: list[list[Credit]]) -> bool:
    groups = zip(one, other, strict=True)
    return all(_close(*pair) for group in groups for pair in zip(*group, strict=True))


def _close(one: Credit, other: Credit) -> bool:
    pairs = [*zip(one.advantages, other.advantages, strict=True)]
    if one.returns is not None and other.returns is not None:
        pairs += zip(one.returns, other.returns, strict=True)
    # Returns that are not to be learnt are NaN, which is close to nothing.
    known = (pair for pair in pairs if not all(map(math.isnan, pair)))
    return all(math.isclose(*pair, rel_tol=TOLERANCE, abs_tol=TOLERANCE) for pair in known)


CREDIT_RULES = (credits_every_token, is_fair, is_deterministic, keeps_no_state)
