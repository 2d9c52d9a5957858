"""Trajectories and tokens to hold rewards, algorithms and curricula to their rules with."""

from collections.abc import Sequence
from itertools import count
from random import Random

from agentrl.types import Action, Group, Observation, Outcome, Segment, Span, Stop, Task, Trajectory, Turn

QUESTION = "What is the capital of France?"
TASK = Task("france", "train", {"question": QUESTION}, scenario="capitals", difficulty=1)


def make_trajectory(
    actions: Sequence[str] = ("<search> France</search>", "<answer> Paris</answer>"),
    answer: str | None = "Paris",
    success: bool = True,
    references: Sequence[str] = ("Paris",),
    stop: Stop = "done",
    lengths: Sequence[int] = (3, 2),
    reward: float = 0.0,
    seed: int = 0,
) -> Trajectory:
    """Return a trajectory as the simulator makes them.

    Args:
        actions: the text of each turn.
        answer: the outcome's.
        success: the outcome's.
        references: the outcome's.
        stop: why the episode ended; None of the outcome's facts are left out by it.
        lengths: how many tokens were sampled in each turn; log-probabilities are drawn by `seed`.
        reward: the weighted sum.
        seed: of the episode.
    """
    turns = [
        Turn(Observation(f"{QUESTION} (turn {number})", state_key=f"state {number}"), Action(text, text))
        for number, text in enumerate(actions)
    ]
    outcome = Outcome(
        success,
        answer,
        tuple(references),
        ("answered",) if answer is not None else (),
        () if answer is not None else ("answered",),
        {"searches": float(len(actions))},
    )
    final = Observation("The end.", done=stop == "done") if turns else None
    segments = [make_segment(lengths, Random(seed))] if lengths else []
    return Trajectory(TASK, seed, turns, final, segments, outcome, stop, reward=reward)


def make_walk(path: str, reward: float = 0.0, keys: bool = True, task: str = "t") -> Trajectory:
    """Return a trajectory along a path, with two sampled tokens a turn, for tests of credit for steps.

    Args:
        path: states, and the actions between them, as in "s0 a s1 b s2"; the last state has no action.
        reward: of the trajectory.
        keys: whether the env names its states.
        task: id of the task.
    """
    names = path.split()
    states, actions = names[::2], names[1::2]

    def see(state: str) -> Observation:
        return Observation(f"In {state}", state == states[-1], state if keys else None)

    turns = [Turn(see(state), Action(f"do {action}")) for state, action in zip(states, actions, strict=False)]
    spans = [Span(4 * turn + 1, [-1.0, -1.0], turn) for turn in range(len(turns))]
    segments = [Segment([0] * 4 * max(1, len(turns)), spans)]
    return Trajectory(Task(task), turns=turns, final=see(states[-1]), segments=segments, reward=reward)


def make_segment(lengths: Sequence[int], random: Random, turns: Sequence[int] | None = None) -> Segment:
    """Return a segment with sampled spans of these lengths, each after two given tokens.

    `turns` says of which turn each span is; None means one span a turn.
    """
    segment = Segment()
    for turn, length in zip(turns or range(len(lengths)), lengths, strict=True):
        segment.token_ids += [random.randrange(256) for _ in range(2)]
        logprobs = [-2 * random.random() for _ in range(length)]
        segment.spans.append(Span(len(segment.token_ids), logprobs, turn))
        segment.token_ids += [random.randrange(256) for _ in range(length)]
    return segment


def make_groups(rewards: Sequence[Sequence[float]]) -> list[Group]:
    """Return groups of trajectories with these rewards, of one to three turns and different lengths.

    One after the other, their agents add to one segment, ask twice a turn, and restart.
    """
    random, numbers = Random(7), count()
    return [
        Group(
            Task(f"task {index}"),
            [_with_turns(random.randint(1, 3), reward, next(numbers), random) for reward in group],
        )
        for index, group in enumerate(rewards)
    ]


def _with_turns(turns: int, reward: float, number: int, random: Random) -> Trajectory:
    trajectory = make_trajectory(
        actions=[f"go {random.choice(['north', 'south', 'east', 'west'])}" for _ in range(turns)],
        success=reward > 0,
        lengths=(),
        reward=reward,
        seed=random.randrange(1 << 30),
    )
    every = list(range(turns))
    # Of which turn each span of each segment is.
    agents: tuple[list[list[int]], ...] = ([every], [sorted(every * 2)], [[0], every])
    trajectory.segments = [
        make_segment([random.randint(1, 4) for _ in segment], random, segment)
        for segment in agents[number % len(agents)]
    ]
    return trajectory
