"""The steps of a trajectory, for credit that tells one step from another.

A step is a turn seen as a transition: the state it began in, the action, the state it led to. States and
actions are keys, so that the same step is found again in other trajectories of the task. Where env or agent
give keys (`Observation.state_key`, `Action.key`), these are meant; elsewhere the text itself stands in.

An algorithm that credits steps compares them (`steps`), decides on a number per turn, and lays it over the
tokens that were sampled in each turn (`spread`).
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from agentrl.types import Group, Observation, Trajectory

# What differs between two looks at the same thing: times and dates, and identifiers made by machines.
_VOLATILE = re.compile(
    r"\d{4}-\d\d-\d\d([t ]\d\d:\d\d(:\d\d(\.\d+)?)?(z|[+-]\d\d:?\d\d)?)?"
    r"|\b\d\d?:\d\d(:\d\d(\.\d+)?)?\b"
    r"|\b(?=[a-z_-]*\d)(?=[0-9_-]*[a-z])[a-z0-9_-]{16,}\b"
)
END = "end"

TextKey = Callable[[str], str]
"""Makes equal keys of texts that mean the same."""


@dataclass(frozen=True, slots=True)
class Step:
    """One turn as a transition.

    Attributes:
        state: key of the state the agent acted in.
        action: key of what it did.
        next_state: key of the state this led to; of the end, if no further observation was made.
        given: whether the env named the state; otherwise its text stands in.
    """

    state: str
    action: str
    next_state: str
    given: bool


def exact(text: str) -> str:
    """Return `text` as it is."""
    return text


def folded(text: str) -> str:
    """Return `text` in lower case, with single spaces."""
    return " ".join(text.casefold().split())


def normalized(text: str) -> str:
    """Return `text` in lower case, with single spaces, without times and machine-made identifiers."""
    return " ".join(_VOLATILE.sub("*", text.casefold()).split())


def steps(
    trajectory: Trajectory,
    state_text: TextKey = normalized,
    action_text: TextKey = folded,
    given_keys: bool = True,
) -> list[Step]:
    """Return the steps of a trajectory, one a turn.

    Args:
        trajectory: what was played.
        state_text: makes a key of what an observation shows, where the env gave none.
        action_text: makes a key of what an action says, where none was given. A time in an action is part of
            what it does, so `normalized` would be too coarse.
        given_keys: whether keys of env and agent are used where there are any.
    """

    def state(observation: Observation | None) -> str:
        if observation is None:
            return END
        if given_keys and observation.state_key is not None:
            return f"key:{observation.state_key}"
        return f"text:{state_text(observation.text)}"

    turns = trajectory.turns
    states = [*(state(turn.observation) for turn in turns), state(trajectory.final)]
    found = []
    for place, turn in enumerate(turns):
        key = turn.action.key if given_keys else None
        action = f"key:{key}" if key is not None else f"text:{action_text(turn.action.text)}"
        given = given_keys and turn.observation.state_key is not None
        found.append(Step(states[place], action, states[place + 1], given))
    return found


def share_named(groups: Iterable[Group]) -> float:
    """Return the share of all steps whose state the env named; 0 of none."""
    turns = [turn for group in groups for t in group.trajectories for turn in t.turns]
    return sum(turn.observation.state_key is not None for turn in turns) / max(1, len(turns))


def spread(trajectory: Trajectory, per_turn: Sequence[float], rest: float) -> list[float]:
    """Return a number for each sampled token: that of its turn.

    Args:
        trajectory: whose tokens they are.
        per_turn: a number for each of `trajectory.turns`.
        rest: for tokens of a turn that came to no action, because there was no more room.
    """
    return [
        per_turn[span.turn] if span.turn < len(per_turn) else rest
        for span in trajectory.spans
        for _ in span.logprobs
    ]
