"""SALT: a step that several trajectories of a group share gets the mean of their advantages.

Li et al. 2025, "SALT: Step-level Advantage Assignment for Long-horizon Agents via Trajectory Graph",
arXiv:2510.20022. The trajectories of a group are laid over one another: states are the nodes of a graph, and
step t of trajectory i is an edge

    e_it = (s_t, a_t, s_{t+1}, and the last N edges before it)

With A_i the advantage of the trajectory, as a group algorithm has it (GRPO, or leave-one-out), the advantage
of every step on an edge e is

    A(e) = mean of A_i over all (i, t) with e_it = e

so what good and bad trajectories did alike is neither praised nor blamed, and what tells them apart keeps its
A_i. Nothing is propagated along the graph, and the rollout is the same; the cost is a hash a step. Tokens
share the advantage of their turn.

What the paper leaves open, or we could not verify, is an option:
1. `history` is N. The default 0 trusts states: equal keys promise an equal future (`Observation.state_key`),
   so the way there does not matter, and most is shared. Where the text stands in for a state it may show too
   little, so that 1 or 2 may be right. None compares everything before: only common prefixes are shared.
2. `keys` and `match`: which states and actions are the same. Canonical keys of env and agent are preferred
   to comparing texts, which rarely agree to the letter after the first turns.
3. `visit`: whether a trajectory that comes by an edge again counts again.
4. Tokens of a turn that came to no action, because there was no more room, keep A_i.
5. With `kl="reward"` A_i contains the penalty of the trajectory, as in GRPO.

`agentrl graph` draws the graph (`agentrl_salt.export`).
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, Self

from pydantic import Field, model_validator

from agentrl import Batch, Credit, Group
from agentrl.steps import Step, TextKey, exact, folded, normalized, share_named, spread, steps
from agentrl.types import Need
from agentrl_grpo import GRPO
from agentrl_rloo import leave_one_out
from agentrl_salt.embedding import Embedder, cluster

__all__ = ["SALT", "Edge"]


@dataclass(frozen=True, slots=True)
class Edge:
    """What steps have to agree in to share their advantage.

    Attributes:
        state: key of the state it leaves.
        action: key of the action.
        next_state: key of the state it leads to; None where that is not compared.
        before: numbers of the edges that were walked last.
    """

    state: str
    action: str
    next_state: str | None
    before: tuple[int, ...] = ()


class SALT(GRPO):
    """Step-level advantages from the graph of a group's trajectories, on top of GRPO or RLOO."""

    class Config(GRPO.Config):
        """Options of SALT, besides those of GRPO."""

        base: Literal["grpo", "rloo"] = Field(
            default="grpo",
            description="advantage of a trajectory: GRPO's, or leave-one-out, n / (n - 1) (R - mean)",
        )
        history: int | None = Field(
            default=0,
            ge=0,
            description="how many edges before a step must agree, too; None: all, so that only common "
            "prefixes are shared",
        )
        include_next_state: bool = Field(
            default=True, description="whether steps must also lead to the same state"
        )
        keys: Literal["prefer", "require", "ignore"] = Field(
            default="prefer",
            description="keys of env and agent: used where there are any, required of the env, or not used",
        )
        match: Literal["exact", "normalised", "embedding"] = Field(
            default="normalised",
            description="which texts are the same where there is no key: equal ones; those that differ in "
            "case and spaces only, observations also in times and machine-made identifiers; or those with "
            "similar embeddings",
        )
        embedding_model: str | None = Field(
            default=None,
            description="for match 'embedding': encoder or decoder that transformers can load, a folder or "
            "hub name; it runs on the CPU",
        )
        threshold: float | None = Field(
            default=None,
            gt=-1,
            le=1,
            description="for match 'embedding': least cosine of texts that are the same; None means 0.9",
        )
        visit: Literal["every", "first"] = Field(
            default="every",
            description="what a trajectory adds to an edge's mean: its advantage at every visit, or once",
        )

        @model_validator(mode="after")
        def _every_salt_option_is_used(self) -> Self:
            fields = type(self).model_fields
            scaled = any(getattr(self, name) != fields[name].default for name in ("normalisation", "epsilon"))
            if self.base == "rloo" and scaled:
                raise ValueError("normalisation and epsilon go with base 'grpo'; leave-one-out has neither")
            if self.match == "embedding" and self.embedding_model is None:
                raise ValueError("match 'embedding' needs an embedding_model, a folder or hub name")
            if self.match != "embedding" and (self.embedding_model, self.threshold) != (None, None):
                raise ValueError("embedding_model and threshold go with match 'embedding', and with no other")
            return self

    config: Config

    def __init__(self, config: Config | None = None) -> None:
        """Take options. An embedding model is loaded now: a wrong name stops the run before it plays."""
        super().__init__(config)
        name = self.config.embedding_model
        self._embed = Embedder(name) if name is not None else None

    @property
    def needs(self) -> frozenset[Need]:
        """Return what GRPO needs, and "step_keys" where they are required."""
        required: frozenset[Need] = frozenset(["step_keys"] if self.config.keys == "require" else [])
        return super().needs | required

    def credit(self, batch: Batch) -> list[list[Credit]]:
        """Give each step the mean advantage of its edge; its tokens share it."""
        graphs = [self.edges(group) for group in batch.groups]
        self._report(batch, graphs)
        credits = []
        for index, (group, paths) in enumerate(zip(batch.groups, graphs, strict=True)):
            advantages = self.advantages(self.rewards(batch, index))
            of_edge = self.edge_advantages(paths, advantages)
            members = zip(group.trajectories, paths, advantages, strict=True)
            credits.append([Credit(spread(t, [of_edge[e] for e in path], a)) for t, path, a in members])
        return credits

    def advantages(self, rewards: list[float]) -> list[float]:
        """Return the advantage of each trajectory of a group, by which edges are measured."""
        return leave_one_out(rewards) if self.config.base == "rloo" else super().advantages(rewards)

    def edge_advantages(self, paths: list[list[Edge]], advantages: list[float]) -> dict[Edge, float]:
        """Return the advantage of each edge of a group: the mean over those who walked it."""
        pools: dict[Edge, list[float]] = defaultdict(list)
        for path, advantage in zip(paths, advantages, strict=True):
            for edge in path if self.config.visit == "every" else set(path):
                pools[edge].append(advantage)
        return {edge: _mean(pool) for edge, pool in pools.items()}

    def edges(self, group: Group) -> list[list[Edge]]:
        """Return the edge of each step of each trajectory of a group."""
        found = self.steps(group)
        pairs = zip(found, self.histories(found), strict=True)
        return [
            [self._edge(step, before) for step, before in zip(path, befores, strict=False)]
            for path, befores in pairs
        ]

    def steps(self, group: Group) -> list[list[Step]]:
        """Return the steps of each trajectory; equal keys are what the options say is the same."""
        given = self.config.keys != "ignore"
        keys = self._text_keys(group)
        return [steps(trajectory, *keys, given) for trajectory in group.trajectories]

    def histories(self, found: list[list[Step]]) -> list[list[tuple[int, ...]]]:
        """Return what counts of the way to each state of each trajectory, the last one included.

        These are the numbers of the edges that were walked last. Without a bound one is enough: it is of the
        edge with all that was before it.
        """
        numbers: dict[Edge, int] = {}
        return [self._histories(path, numbers) for path in found]

    def _histories(self, path: list[Step], numbers: dict[Edge, int]) -> list[tuple[int, ...]]:
        bound = self.config.history
        walked: list[int] = []
        befores: list[tuple[int, ...]] = [()]
        for step in path:
            edge = self._edge(step, befores[-1] if bound is None else ())
            walked.append(numbers.setdefault(edge, len(numbers)))
            count = 1 if bound is None else min(bound, len(walked))
            befores.append(tuple(walked[len(walked) - count :]))
        return befores

    def _edge(self, step: Step, before: tuple[int, ...]) -> Edge:
        next_state = step.next_state if self.config.include_next_state else None
        return Edge(step.state, step.action, next_state, before)

    def _text_keys(self, group: Group) -> tuple[TextKey, TextKey]:
        """Return what makes keys of texts: of observations, and of actions."""
        if self._embed is None:
            return (exact, exact) if self.config.match == "exact" else (normalized, folded)
        texts: set[str] = set()

        def note(text: str) -> str:
            texts.add(normalized(text))
            return text

        for trajectory in group.trajectories:
            steps(trajectory, note, note, self.config.keys != "ignore")
        threshold = 0.9 if self.config.threshold is None else self.config.threshold
        leaders = cluster(texts, self._embed, threshold)

        def leader(text: str) -> str:
            return leaders[normalized(text)]

        return leader, leader

    def _report(self, batch: Batch, graphs: list[list[list[Edge]]]) -> None:
        """Log how much is shared, and how many states the env named."""
        walkers = [_walkers(paths) for paths in graphs]
        pairs = zip(walkers, graphs, strict=True)
        shared = (who[edge] > 1 for who, paths in pairs for path in paths for edge in path)
        batch.log("merged_steps", _share(shared))
        batch.log("merged_edges", _share(count > 1 for who in walkers for count in who.values()))
        batch.log("given_keys", 0.0 if self.config.keys == "ignore" else share_named(batch.groups))


def _mean(values: Sequence[float]) -> float:
    """Return the mean; rounding never takes it out of the range of the values, nor off equal ones."""
    return min(max(fmean(values), min(values)), max(values))


def _walkers(paths: list[list[Edge]]) -> dict[Edge, int]:
    """Return how many trajectories walked each edge."""
    counts: dict[Edge, int] = defaultdict(int)
    for path in paths:
        for edge in set(path):
            counts[edge] += 1
    return counts


def _share(flags: Iterable[bool]) -> float:
    """Return the share of true flags; 0 of none."""
    listed = list(flags)
    return sum(listed) / max(1, len(listed))
