"""Which groups an update is made of: sizes, refills, seeds, what is kept and what is recorded of it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from agentrl import (
    AgentRLError,
    Algorithm,
    Batch,
    Credit,
    Curriculum,
    Group,
    Outcome,
    PluginError,
    Task,
    Tokens,
    Trajectory,
    hookimpl,
)
from agentrl.collection import Collection, Collector
from agentrl.config import RunConfig
from agentrl.hooks import Hooks
from agentrl.interfaces import Reward
from agentrl.judging import Judge, WeightedReward
from agentrl.metrics import rollout_metrics
from agentrl.seeds import derive
from agentrl.task_record import digest, task_rows
from agentrl.types import Need, Stop


class Counting(Curriculum):
    """Chooses tasks by number; remembers what it was told."""

    def __init__(self, sizes: Callable[[int, int], list[int]] | None = None) -> None:
        super().__init__()
        self.next = 0
        self.learnt: list[str] = []
        self.share_out = sizes

    def start(self, tasks: Sequence[Task], seed: int) -> None: ...
    def choose(self, n: int) -> list[Task]:
        self.next += n
        return [Task(str(number), difficulty=number % 2) for number in range(self.next - n, self.next)]

    def sizes(self, tasks: Sequence[Task], group_size: int) -> list[int]:
        return self.share_out(len(tasks), group_size) if self.share_out else super().sizes(tasks, group_size)

    def learn(self, groups: Sequence[Group]) -> None:
        self.learnt += [group.task.id for group in groups]

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None: ...


class FakeSimulator:
    """Solves every other time the tasks whose number says so."""

    def __init__(self, can_teach: Callable[[int], bool], fails: bool = False) -> None:
        self.seeds: list[int] = []
        self.can_teach, self.fails = can_teach, fails

    async def play(
        self,
        tasks: Sequence[Task],
        sizes: Sequence[int],
        seed: int,
        progress: object,
        *,
        alike: bool,
        judge: Judge,
        call: str,
        cut_off: float | None,
    ) -> list[Group]:
        assert alike, "what a group compares must begin alike"
        self.seeds.append(seed)
        groups = [
            Group(task, [self.trajectory(task, place) for place in range(size)])
            for task, size in zip(tasks, sizes, strict=True)
        ]
        for trajectory in (each for group in groups for each in group.trajectories):
            await judge(trajectory)
        return groups

    def trajectory(self, task: Task, place: int) -> Trajectory:
        if self.fails:
            return Trajectory(task, stop="error", error="the env crashed")
        return Trajectory(task, outcome=Outcome(success=self.can_teach(int(task.id)) and place % 2 == 0))


class Success(Reward):
    async def score(self, trajectory: Trajectory) -> float:
        assert trajectory.outcome
        return float(trajectory.outcome.success)


class Compares(Algorithm):
    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({"groups"})

    def credit(self, batch: Batch) -> list[list[Credit]]:
        return []

    def loss(self, tokens: Tokens) -> Any:
        return None

    @hookimpl
    def keep_group(self, group: Group) -> bool:
        return len(set(group.rewards)) > 1


def collector(
    simulator: FakeSimulator,
    curriculum: Counting | None = None,
    algorithm: Algorithm | None = None,
    **said: Any,
) -> Collector:
    algorithm = algorithm or Compares()
    hooks = Hooks(installed=False)
    hooks.invite(algorithm, "compares")
    config = RunConfig(env="none", agent="none", seed=3, tasks_per_step=4, group_size=4, **said)
    rewards = [WeightedReward("success", Success(), 1.0)]
    return Collector(curriculum or Counting(), simulator, rewards, hooks, algorithm, config)  # type: ignore[arg-type]


def collect(made: Collector, step: int = 7) -> Collection:
    return asyncio.run(made.collect(step))


def ids(groups: Sequence[Group]) -> list[str]:
    return [group.task.id for group in groups]


def test_without_refills_a_step_plays_once_with_the_seed_of_the_step() -> None:
    simulator = FakeSimulator(lambda number: number != 1)
    found = collect(collector(simulator))
    assert simulator.seeds == [derive(3, "train", 7)]
    assert ids(found.played) == ["0", "1", "2", "3"]
    assert found.kept == [True, False, True, True]
    assert ids(found.usable()) == ["0", "2", "3"]


def test_refills_play_as_many_further_tasks_as_are_missing() -> None:
    simulator, curriculum = FakeSimulator(lambda number: number % 2 == 0), Counting()
    found = collect(collector(simulator, curriculum, refills=5))
    # 0 to 3 miss two; 4 and 5 miss one; 6 fills the step.
    assert ids(found.played) == ["0", "1", "2", "3", "4", "5", "6"]
    assert ids(found.usable()) == ["0", "2", "4", "6"]
    assert simulator.seeds == [derive(3, "train", 7), derive(3, "train", 7, 1), derive(3, "train", 7, 2)]
    assert curriculum.learnt == ids(found.played)


def test_refills_come_to_an_end() -> None:
    simulator = FakeSimulator(lambda number: False)
    found = collect(collector(simulator, refills=2))
    assert len(found.played) == 12
    assert found.usable() == []
    assert len(simulator.seeds) == 3


def test_all_played_groups_are_in_the_metrics() -> None:
    found = collect(collector(FakeSimulator(lambda number: number % 2 == 0), refills=5))
    metrics = rollout_metrics(found.played)
    assert metrics["rollout/trajectories"] == 28
    assert metrics["groups/played"] == 7
    assert metrics["groups/no_signal"] == pytest.approx(3 / 7)
    assert metrics["success"] == pytest.approx(8 / 28)


def test_a_run_in_which_every_episode_fails_is_stopped() -> None:
    with pytest.raises(AgentRLError, match="all 16 episodes failed, 16 of them with: the env crashed"):
        collect(collector(FakeSimulator(lambda number: True, fails=True), refills=3))


def test_the_curriculum_gives_sizes() -> None:
    uneven = Counting(lambda count, size: [2, 8, 3, 2])
    found = collect(collector(FakeSimulator(lambda number: True), uneven))
    assert [len(group.trajectories) for group in found.played] == [2, 8, 3, 2]


@pytest.mark.parametrize("sizes", [[4, 4, 4], [1, 4, 4, 4], [4, 4, 4, 5], []])
def test_sizes_that_do_not_fit_stop_the_run_and_name_the_curriculum(sizes: list[int]) -> None:
    curriculum = Counting(lambda count, size: sizes)
    with pytest.raises(PluginError, match=r"'uniform' gave the group sizes .* at least 2 .* at most 16"):
        collect(collector(FakeSimulator(lambda number: True), curriculum))


def test_what_became_of_each_task_is_recorded() -> None:
    found = collect(collector(FakeSimulator(lambda number: number % 2 == 0)))
    found.played[3].trajectories[0].stop = "error"
    first, second, _, last = task_rows(found.played, found.kept)
    assert first == {
        "task": "0",
        "difficulty": 0,
        "scenario": None,
        "labels": {},
        "trajectories": 4,
        "failed": 0,
        "reward": 0.5,
        "success": 0.5,
        "taught": True,
        "kept": True,
    }
    assert (second["success"], second["taught"], second["kept"]) == (0.0, False, False)
    assert (last["trajectories"], last["failed"]) == (4, 1)
    broken = Group(Task("b"), [Trajectory(Task("b"), stop="error", error="x")])
    assert next(task_rows([broken], [False]))["success"] is None


def test_a_digest_weighs_trajectories_and_comes_most_played_first() -> None:
    common = {"reward": 0.0, "failed": 0, "kept": True}
    rows = [
        {"step": 1, "task": "a", "trajectories": 2, "success": 1.0, "taught": False, **common},
        {"step": 2, "task": "b", "trajectories": 4, "success": 0.5, "taught": True, **common},
        {"step": 3, "task": "a", "trajectories": 6, "success": 0.0, "taught": True, **common},
        {"step": 4, "task": "a", "trajectories": 2, "success": None, "taught": False, **common, "failed": 2},
    ]
    a, b = digest(rows, ["task"])
    assert (a.key, a.groups, a.trajectories, a.success, a.last) == (("a",), 3, 10, 0.25, 4)
    assert a.taught == pytest.approx(1 / 3)
    assert (b.key, b.success) == (("b",), 0.5)
    (whole,) = digest(rows, [])
    assert (whole.tasks, whole.groups) == (2, 4)


@pytest.mark.parametrize(("stop", "name"), [("max_turns", "max_turns"), ("max_tokens", "max_tokens")])
def test_why_trajectories_were_cut_off_is_in_the_metrics(stop: Stop, name: str) -> None:
    stops: list[Stop] = [stop, "done", "done", "error"]
    played = [
        Trajectory(Task("a"), outcome=None if each == "error" else Outcome(success=True), stop=each)
        for each in stops
    ]
    metrics = rollout_metrics([Group(Task("a"), played)])
    assert metrics["truncated"] == metrics[f"truncated/{name}"] == pytest.approx(1 / 3)
    assert sum(value for key, value in metrics.items() if key.startswith("truncated/")) == pytest.approx(
        1 / 3
    )
    assert metrics["failed"] == 0.25
