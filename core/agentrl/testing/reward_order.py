"""The rules of rewards that compare trajectories: what is better scores no less, nothing scores nothing."""

from collections.abc import Sequence

from agentrl.testing.reward_scorer import RewardUnderTest, empty_trajectories, idle_trajectories
from agentrl.testing.rules import RuleBroken, RuleSkipped
from agentrl.testing.samples import make_trajectory
from agentrl.types import Outcome, Trajectory


def pays_nothing_for_nothing(subject: RewardUnderTest) -> None:
    """Whoever did nothing scores no more than whoever succeeded."""
    if subject.shaping:
        raise RuleSkipped("it is looked at as an addition to other rewards: shaping")
    _never_rises(
        subject,
        "pays nothing for nothing",
        [("a success", make_trajectory()), *idle_trajectories()],
        "score doing nothing no higher than success, for example 0; or pass shaping=True, if it is a "
        "small addition to rewards that say what is right",
        with_first=True,
    )


def pays_for_success(subject: RewardUnderTest) -> None:
    """Some success scores more than every trajectory in which nothing was said."""
    if subject.shaping:
        raise RuleSkipped("it is looked at as an addition to other rewards: shaping")
    solved = [each for each in subject.trajectories if each[1].outcome and each[1].outcome.success]
    reward = subject.new()
    most = max(subject.scores(reward, solved))
    empty = max(subject.scores(reward, empty_trajectories()))
    if most <= empty:
        raise RuleBroken(
            "pays for success",
            f"a success scored {most:g}, and one in which nothing was said {empty:g}",
            "look for a comparison that never holds; if it needs episodes of your env to tell them apart, "
            "pass such trajectories, a success among them; or pass shaping=True, if it is a small addition "
            "to rewards that say what is right",
        )


def prefers_what_is_right(subject: RewardUnderTest) -> None:
    """Of trajectories that differ in nothing else, a righter answer and more passed checks never cost."""
    if subject.shaping:
        raise RuleSkipped("it is looked at as an addition to other rewards: shaping")
    remedy = "look for a sign that is turned round, or for a comparison with the wrong side"
    answers = [
        ("the right answer", make_trajectory()),
        ("half of it", make_trajectory(answer="Paris, perhaps Rome", success=False)),
        ("a wrong answer", make_trajectory(answer="Rome", success=False)),
    ]
    _never_rises(subject, "prefers what is right", answers, remedy)
    names = ("found", "paid", "delivered")
    checked = []
    for count in (3, 2, 1, 0):
        trajectory = make_trajectory(answer=None)
        trajectory.outcome = Outcome(count == 3, passed=names[:count], failed=names[count:])
        checked.append((f"{count} of 3 checks passed", trajectory))
    _never_rises(subject, "prefers what is right", checked, remedy)


def _never_rises(
    subject: RewardUnderTest,
    rule: str,
    falling: Sequence[tuple[str, Trajectory]],
    remedy: str,
    *,
    with_first: bool = False,
) -> None:
    """Hold scores to an order: none above the one before it, or, `with_first`, above the first."""
    scores = subject.scores(subject.new(), falling)
    for place in range(1, len(falling)):
        better = 0 if with_first else place - 1
        if scores[place] > scores[better]:
            found = f"{falling[place][0]} scored {scores[place]:g}, {falling[better][0]} {scores[better]:g}"
            raise RuleBroken(rule, found, remedy)
