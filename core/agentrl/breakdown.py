"""Where a policy succeeds and where it does not: by kind of task, and by the conditions of episodes.

All functions take groups that were played and judged, without their failed trajectories; a group may be
empty then. Tasks, not episodes, are what is drawn independently (see `statistics.estimate`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, prod
from statistics import fmean
from typing import Any

from agentrl.panel import scenario_of
from agentrl.statistics import Estimate, combined, estimate, pass_at_k, pass_hat_k
from agentrl.types import Group, Trajectory


@dataclass(frozen=True, slots=True)
class TagEffect:
    """Success with and without a condition, among tasks of the same labels.

    Attributes:
        tasks: of which kind, as `label=value`; "all" where they are not told apart.
        tag: the condition.
        present: success of the episodes that were played under it.
        absent: success of the others, as if they were as often of each label; None if there are none.
        episodes: how many were played under it, where there are others of the same labels, if there are any.
        others: how many were not.
    """

    tasks: str
    tag: str
    present: Estimate
    absent: Estimate | None
    episodes: int
    others: int

    @classmethod
    def from_json(cls, json: Mapping[str, Any]) -> "TagEffect":
        """Return the effect that is stored as `json`."""
        absent = json["absent"] and Estimate.from_json(json["absent"])
        return cls(**{**json, "present": Estimate.from_json(json["present"]), "absent": absent})


def succeeded(trajectory: Trajectory) -> bool:
    """Return whether the env judged a trajectory a success."""
    return trajectory.outcome is not None and trajectory.outcome.success


def attempts(groups: Iterable[Group]) -> int:
    """Return how many attempts there are at the tasks that have most."""
    return max((len(group.trajectories) for group in groups), default=0)


def passes(groups: Iterable[Group], k: int, suffix: str = "") -> dict[str, Estimate]:
    """Return pass@k, that one of `k` attempts succeeds, and pass^k, that all do.

    Of tasks with fewer attempts, because episodes failed, neither is known: they are left out.
    """
    enough = [group for group in groups if len(group.trajectories) >= k]
    if not enough:
        return {}
    return {
        f"pass@{k}{suffix}": _over_tasks(pass_at_k, enough, k),
        f"pass^{k}{suffix}": _over_tasks(pass_hat_k, enough, k),
    }


def by_scenario(groups: Iterable[Group]) -> dict[str, Estimate]:
    """Return the share of scenarios of which all tasks succeed.

    Attempts at different tasks are independent, so the product of the tasks' success rates is an unbiased
    estimate of the chance that one attempt at each succeeds; with one attempt it is 0 or 1. A scenario with a
    task of which every episode failed is left out.
    """
    scenarios: dict[str, list[Sequence[Trajectory]]] = {}
    for group in groups:
        scenarios.setdefault(scenario_of(group.task), []).append(group.trajectories)
    whole = [each for each in scenarios.values() if all(each)]
    chances = [[prod(fmean(map(succeeded, tries)) for tries in each)] for each in whole]
    return {"scenario_success": estimate(chances, proportion=True)} if chances else {}


def by_difficulty(groups: Iterable[Group]) -> dict[str, Estimate]:
    """Return success by difficulty, where there are several."""
    levels: dict[int, list[Group]] = {}
    for group in groups:
        if group.task.difficulty is not None and group.trajectories:
            levels.setdefault(group.task.difficulty, []).append(group)
    found = sorted(levels) if len(levels) > 1 else ()
    return {f"success/difficulty_{level}": _success(levels[level]) for level in found}


def by_label(groups: Sequence[Group]) -> dict[str, Estimate]:
    """Return success by label where one has several values; with repeats also pass@k and pass^k for all.

    Where several labels have, success is also by all of them together, such as "skill=mail,profile=calm".
    """
    varied = [name for name in _labels(groups) if _kinds(groups, name)]
    kinds = [kind for name in varied for kind in _kinds(groups, name).items()]
    if len(varied) > 1:
        kinds += _together(groups, varied).items()
    most = attempts(groups)
    found = {f"success/{name}": _success(those) for name, those in kinds}
    for name, those in kinds if most > 1 else ():
        found |= passes(those, most, f"/{name}")
    return found


def by_tag(groups: Sequence[Group]) -> list[TagEffect]:
    """Return what each condition did to success, apart for each value of the first label; the worst first.

    It is compared among tasks with all labels in common: conditions may be commoner where tasks are harder.
    """
    first = _labels(groups)[:1]
    kinds = (_kinds(groups, first[0]) if first else {}) or {"all": list(groups)}
    effects = [_effect(tag, name, those) for name, those in kinds.items() for tag in _tags(those)]
    places = {name: place for place, name in enumerate(kinds)}
    return sorted(effects, key=lambda each: (places[each.tasks], -_harm(each), each.tag))


def _labels(groups: Iterable[Group]) -> list[str]:
    return list(dict.fromkeys(name for group in groups for name in group.task.labels))


def _kinds(groups: Iterable[Group], label: str) -> dict[str, list[Group]]:
    """Return the groups by `label=value`; nothing if it has but one value."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        if label in group.task.labels and group.trajectories:
            found.setdefault(f"{label}={group.task.labels[label]}", []).append(group)
    return dict(sorted(found.items())) if len(found) > 1 else {}


def _together(groups: Iterable[Group], labels: Sequence[str]) -> dict[str, list[Group]]:
    """Return the groups that have all `labels`, by what these say."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        said = group.task.labels
        if group.trajectories and all(label in said for label in labels):
            found.setdefault(",".join(f"{label}={said[label]}" for label in labels), []).append(group)
    return dict(sorted(found.items()))


def _tags(groups: Iterable[Group]) -> set[str]:
    return {tag for group in groups for each in group.trajectories for tag in _tags_of(each)}


def _tags_of(trajectory: Trajectory) -> tuple[str, ...]:
    return trajectory.outcome.tags if trajectory.outcome else ()


def _effect(tag: str, kind: str, groups: Sequence[Group]) -> TagEffect:
    strata = _strata(tag, groups)
    both = [(under, others) for under, others in strata if _episodes(under) and _episodes(others)]
    if not both:
        under = [group for each, _ in strata for group in each]
        return TagEffect(kind, tag, _success(under), None, _episodes(under), 0)
    weights = [_episodes(under) for under, _ in both]
    present, absent = (combined(list(map(_success, those)), weights) for those in zip(*both, strict=True))
    return TagEffect(kind, tag, present, absent, sum(weights), sum(_episodes(others) for _, others in both))


def _strata(tag: str, groups: Iterable[Group]) -> list[tuple[list[Group], list[Group]]]:
    """Return for tasks of the same labels the groups with the episodes under a condition, and the others."""
    found: dict[tuple[tuple[str, str], ...], tuple[list[Group], list[Group]]] = {}
    for group in groups:
        under, others = found.setdefault(tuple(sorted(group.task.labels.items())), ([], []))
        under.append(Group(group.task, [t for t in group.trajectories if tag in _tags_of(t)]))
        others.append(Group(group.task, [t for t in group.trajectories if tag not in _tags_of(t)]))
    return list(found.values())


def _episodes(groups: Iterable[Group]) -> int:
    return sum(len(group.trajectories) for group in groups)


def _harm(effect: TagEffect) -> float:
    return effect.absent.mean - effect.present.mean if effect.absent else -inf


def _success(groups: Iterable[Group]) -> Estimate:
    return estimate([[float(succeeded(t)) for t in g.trajectories] for g in groups], proportion=True)


def _over_tasks(chance: Callable[[int, int, int], float], groups: Iterable[Group], k: int) -> Estimate:
    counts = [(len(g.trajectories), sum(map(succeeded, g.trajectories))) for g in groups if g.trajectories]
    return estimate([[chance(tried, successes, k)] for tried, successes in counts], proportion=True)
