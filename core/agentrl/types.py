"""The values that flow between envs, agents, engines, rewards, algorithms and trainers.

An env gives an agent an observation, the agent answers with an action: a turn. The turns of one
episode, with the token segments in which they were sampled, its outcome and its reward are a
trajectory; the trajectories of one task that were played for one update are a group.
Plain data: nothing here does I/O or imports torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Stop = Literal["done", "max_turns", "max_tokens", "error", "cut"]
Role = Literal["system", "user", "assistant", "tool"]
Need = Literal["values", "reference", "logprobs", "groups", "step_keys", "demonstrations"]


@dataclass(frozen=True, slots=True)
class Task:
    """One problem an env can pose.

    `data` is JSON-safe, and all that `Env.reset` needs to pose the problem again in another process.
    `scenario` names a family of variants. `labels` say of what kind the task is, such as
    `{"skill": "calendar"}`: success is told by label. Agents never see a task, only observations.
    """

    id: str
    split: str = "train"
    data: Mapping[str, Any] = field(default_factory=dict)
    scenario: str | None = None
    difficulty: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Observation:
    """What the env shows; `done` ends the episode.

    `state_key` identifies the world's state where the env can tell: two equal keys of one task mean
    that the same actions would lead to the same future. None means that the env cannot tell.
    `action_key` is the canonical form of the action that led here, where the env can tell what it did; the
    trajectory keeps it as that action's `key`, in place of the agent's.
    """

    text: str
    done: bool = False
    state_key: str | None = None
    action_key: str | None = None


@dataclass(frozen=True, slots=True)
class Action:
    """What the agent does; `key` is its canonical form where the env or agent can tell."""

    text: str
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One observation and the action that answered it."""

    observation: Observation
    action: Action


@dataclass(frozen=True, slots=True)
class Outcome:
    """The verifiable facts about the end of an episode.

    `success` is the env's own verdict. `answer` is what the agent gave as its final answer, None if
    it gave none; `references` are the right answers, for rewards to compare with. `passed` and
    `failed` name checks. `metrics` are further numbers worth averaging over trajectories. `tags` name the
    conditions under which the episode was played, such as "slow": success is told with and without each.
    """

    success: bool
    answer: str | None = None
    references: tuple[str, ...] = ()
    passed: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat, as chat templates understand it.

    `more` are further keys that some templates know, such as the assistant's `tool_calls`.
    """

    role: Role
    content: str
    more: Mapping[str, Any] = field(default_factory=dict)


def system(content: str) -> Message:
    """Return a system message."""
    return Message("system", content)


def user(content: str) -> Message:
    """Return a user message."""
    return Message("user", content)


def tool(content: str) -> Message:
    """Return a tool message."""
    return Message("tool", content)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an engine draws tokens.

    `temperature` 0 takes the likeliest token. Generation ends after the token that completes one of
    the `stop` strings or the model's end-of-turn token, both of which stay in the completion, or
    after `max_tokens`. The same `seed`, ids and weights give the same tokens, whatever else the engine
    is doing.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine sampled.

    Attributes:
        token_ids: the sampled ids, the one that ended generation included.
        logprobs: nats, one a token, under the model's distribution at `temperature`, without top-p.
        stop: "stop" if a stop string or the end-of-turn token came, "length" if tokens ran out.
        version: of the weights that sampled (see `Engine.load_weights`); where others came meanwhile, of
            the oldest that had a part in it.
        temperature: the one sampled with; 1 where none was, for the likeliest token is sampled at 0. What is
            trained is the distribution at this temperature.
        changes: where other weights sampled on, after they had read again what stood there: the index of the
            first token that they sampled, and their version; ascending.
    """

    token_ids: list[int]
    logprobs: list[float]
    stop: Literal["stop", "length"]
    version: int = 0
    temperature: float = 1.0
    changes: tuple[tuple[int, int], ...] = ()

    def spans(self, start: int, turn: int) -> list["Span"]:
        """Return the runs of tokens that weights of one version sampled; the first token is at `start`."""
        firsts, versions = zip((0, self.version), *self.changes, strict=True)
        bounds = zip(firsts, (*firsts[1:], len(self.token_ids)), versions, strict=True)
        return [
            Span(start + first, list(self.logprobs[first:stop]), turn, version, self.temperature)
            for first, stop, version in bounds
        ]


@dataclass(slots=True)
class Span:
    """A run of sampled tokens inside a segment: `start` is its first index, one logprob a token.

    A log-probability is NaN where no model sampled the token: in demonstrations. `temperature` is that of
    the distribution sampled from (see `Completion`).
    """

    start: int
    logprobs: list[float]
    turn: int
    version: int = 0
    temperature: float = 1.0

    @property
    def stop(self) -> int:
        """Return the index after the span's last token."""
        return self.start + len(self.logprobs)


@dataclass(slots=True)
class Segment:
    """An uninterrupted run of tokens: nothing before was changed.

    The tokens inside `spans` were sampled, with these very ids; all others were given.
    """

    token_ids: list[int] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)

    @property
    def sampled(self) -> int:
        """Return how many tokens were sampled."""
        return sum(len(span.logprobs) for span in self.spans)


@dataclass(slots=True)
class Trajectory:
    """One episode.

    Attributes:
        task: the problem that was posed.
        seed: of the episode: env and sampling derive theirs from it.
        turns: in order.
        final: the observation that no action answered: the one that ended the episode.
        segments: the tokens, in the order in which they were made.
        outcome: what the env judged; None only if the episode failed.
        stop: why the episode ended. Those with "error", and with "cut" for being slow, failed: they take no
            part in credit.
        error: the cause, readable, if the episode failed, or if it was played and a reward cannot judge it.
        rewards: unweighted score by reward name; those of weight 0 are metrics.
        reward: the weighted sum that is learnt from, hooks' adjustments included.
        seconds: wall time of the episode.
    """

    task: Task
    seed: int = 0
    turns: list[Turn] = field(default_factory=list)
    final: Observation | None = None
    segments: list[Segment] = field(default_factory=list)
    outcome: Outcome | None = None
    stop: Stop = "done"
    error: str | None = None
    rewards: dict[str, float] = field(default_factory=dict)
    reward: float = 0.0
    seconds: float = 0.0

    @property
    def sampled(self) -> int:
        """Return how many tokens were sampled; credit is given over these, in order."""
        return sum(segment.sampled for segment in self.segments)

    @property
    def spans(self) -> list[Span]:
        """Return the sampled runs of all segments, in order."""
        return [span for segment in self.segments for span in segment.spans]

    @property
    def failed(self) -> bool:
        """Return whether what became of it says nothing about the agent, so that it teaches nothing."""
        return self.error is not None or not self.played

    @property
    def played(self) -> bool:
        """Return whether the episode came to its end, and its env has judged it."""
        return self.stop not in ("error", "cut")


@dataclass(slots=True)
class Group:
    """The trajectories of one task that were played for one update."""

    task: Task
    trajectories: list[Trajectory]

    @property
    def rewards(self) -> list[float]:
        """Return the reward of each trajectory."""
        return [trajectory.reward for trajectory in self.trajectories]


@dataclass(frozen=True, slots=True)
class Credit:
    """What each sampled token of a trajectory is to learn; `returns` only where there is a critic.

    A return is what the critic should have estimated before the token; NaN where it is not to learn any.
    """

    advantages: Sequence[float]
    returns: Sequence[float] | None = None


@dataclass(slots=True)
class Batch:
    """What a trainer has prepared for credit and update: groups, and facts about their tokens.

    Each fact is indexed [group][trajectory][sampled token], nats or units of reward; None where no
    one needs it. A trainer's subclass may hold more, such as the token trie.

    Attributes:
        groups: without failed trajectories; none is empty.
        logprobs: of the sampled tokens, recomputed by the trainer before the update; None if it trusts those
            of the spans.
        reference_logprobs: under the frozen reference model.
        values: the critic's estimate before each sampled token.
        logged: what `log` collected.
    """

    groups: list[Group]
    logprobs: list[list[Sequence[float]]] | None = None
    reference_logprobs: list[list[Sequence[float]]] | None = None
    values: list[list[Sequence[float]]] | None = None
    logged: dict[str, float] = field(default_factory=dict)

    def log(self, name: str, value: float) -> None:
        """Report a number about the credit of the whole batch, for the metrics `credit/...`."""
        self.logged[name] = value

    def logprobs_of(self, group: int, member: int) -> Sequence[float]:
        """Return the log-probabilities of a trajectory's sampled tokens before the update, nats."""
        if self.logprobs is not None:
            return self.logprobs[group][member]
        return [x for span in self.groups[group].trajectories[member].spans for x in span.logprobs]
