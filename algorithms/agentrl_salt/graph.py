"""The graph of a group's trajectories, with the advantage of every edge, for people and programs to read.

A node is a state that was met; with `history` it is told from the same state with other edges before it, so
that a path in the graph is the path of those who walked it. An arrow is an edge between two nodes.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from agentrl import Group, Observation, Trajectory
from agentrl.steps import Step
from agentrl_salt import SALT, Edge

# What an episode without a last observation leads to.
NOTHING_MORE = "(no further observation)"


@dataclass(slots=True)
class Node:
    """A state.

    Attributes:
        text: what was seen when it was first met.
        state_key: the env's key, if it gave one.
        column: at which step it was met first, by any trajectory.
        visits: how often it was met.
        ends: how many trajectories ended here, by how: "solved", "failed", "cut off".
    """

    text: str
    state_key: str | None
    column: int
    visits: int = 0
    ends: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Arrow:
    """An edge between two nodes, given by their places in `Graph.nodes`.

    Attributes:
        source: where it leaves.
        target: where it leads.
        action: the action's text when it was first walked.
        advantage: of every step on it.
        visits: how often it was walked.
        trajectories: by whom, in ascending order.
    """

    source: int
    target: int
    action: str
    advantage: float
    visits: int = 0
    trajectories: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Path:
    """One trajectory: its reward, its own advantage, how it ended, and its arrows in order."""

    reward: float
    advantage: float
    end: str
    arrows: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Graph:
    """The trajectories of one group, laid over one another."""

    task: str
    nodes: list[Node] = field(default_factory=list)
    arrows: list[Arrow] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)

    @property
    def merged_steps(self) -> float:
        """Return the share of steps on an arrow that several trajectories share."""
        shared = sum(arrow.visits for arrow in self.arrows if len(arrow.trajectories) > 1)
        return shared / max(1, sum(arrow.visits for arrow in self.arrows))

    def to_json(self) -> dict[str, Any]:
        """Return the graph as JSON-safe values; nodes, arrows and trajectories are numbered from 0."""
        return {
            "task": self.task,
            "merged_steps": self.merged_steps,
            "nodes": [{"id": number, **asdict(node)} for number, node in enumerate(self.nodes)],
            "edges": [{"id": number, **asdict(arrow)} for number, arrow in enumerate(self.arrows)],
            "trajectories": [
                {
                    "reward": path.reward,
                    "advantage": path.advantage,
                    "end": path.end,
                    "edges": path.arrows,
                    "step_advantages": [self.arrows[number].advantage for number in path.arrows],
                }
                for path in self.paths
            ],
        }


def make_graph(group: Group, salt: SALT) -> Graph:
    """Return the graph by which `salt` credits the trajectories of `group`."""
    found = salt.steps(group)
    making = _Making(Graph(group.task.id))
    befores, edges = salt.histories(found), salt.edges(group)
    advantages = salt.advantages(group.rewards)
    of_edge = salt.edge_advantages(edges, advantages)
    for number, trajectory in enumerate(group.trajectories):
        path = Path(trajectory.reward, advantages[number], _end(trajectory))
        making.graph.paths.append(path)
        nodes = making.nodes(trajectory, found[number], befores[number])
        for turn, edge in enumerate(edges[number]):
            text = trajectory.turns[turn].action.text
            arrow = making.arrow(edge, nodes[turn], nodes[turn + 1], text, of_edge[edge])
            making.walk(number, arrow)
        if nodes:
            making.end(nodes[-1], path.end)
    return making.graph


class _Making:
    """A graph to which trajectories are added one after the other."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._nodes: dict[tuple[str, tuple[int, ...]], int] = {}
        self._arrows: dict[tuple[Edge, int, int], int] = {}

    def nodes(self, trajectory: Trajectory, found: list[Step], befores: list[tuple[int, ...]]) -> list[int]:
        """Visit the nodes of a trajectory in order, and return them."""
        if not found:
            return []
        seen = [*(turn.observation for turn in trajectory.turns), trajectory.final]
        states = [*(step.state for step in found), found[-1].next_state]
        places = zip(states, befores, strict=True)
        return [self._node(place, column, seen[column]) for column, place in enumerate(places)]

    def _node(self, place: tuple[str, tuple[int, ...]], column: int, seen: Observation | None) -> int:
        number = self._nodes.setdefault(place, len(self._nodes))
        if number == len(self.graph.nodes):
            text, key = (seen.text, seen.state_key) if seen else (NOTHING_MORE, None)
            self.graph.nodes.append(Node(text, key, column))
        node = self.graph.nodes[number]
        node.column = min(node.column, column)
        node.visits += 1
        return number

    def arrow(self, edge: Edge, source: int, target: int, text: str, advantage: float) -> int:
        """Return the arrow of an edge between two nodes, a new one if need be."""
        number = self._arrows.setdefault((edge, source, target), len(self._arrows))
        if number == len(self.graph.arrows):
            self.graph.arrows.append(Arrow(source, target, text, advantage))
        return number

    def walk(self, trajectory: int, arrow: int) -> None:
        """Let a trajectory walk along an arrow."""
        self.graph.paths[trajectory].arrows.append(arrow)
        walked = self.graph.arrows[arrow]
        walked.visits += 1
        if trajectory not in walked.trajectories:
            walked.trajectories.append(trajectory)

    def end(self, node: int, how: str) -> None:
        """Let a trajectory end at a node."""
        ends = self.graph.nodes[node].ends
        ends[how] = ends.get(how, 0) + 1


def _end(trajectory: Trajectory) -> str:
    """Return how an episode ended, as `Node.ends` has it."""
    if trajectory.outcome and trajectory.outcome.success:
        return "solved"
    return "cut off" if trajectory.stop in ("max_turns", "max_tokens") else "failed"
