"""The episode: a gym's page under the conditions of a profile, judged by what happened in its database."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from pydantic import Field, field_validator

from agentrl import Expert, LazyTasks, Outcome, Task
from agentrl.errors import UsageError
from agentrl.options import suggestion
from agentrl_browser import BrowserEnv, Scene

from .backend import Backend
from .conditions import PROFILES, draw, profile_named
from .gym import LEVELS, gym_names, load_gym
from .looking import expert
from .workload import LENGTHS, Plan, problem_of, task_at


class Normcore(BrowserEnv):
    """Practise small, boring interactions: the right change, once, and nothing else."""

    class Config(BrowserEnv.Config):
        """Options."""

        seed: int = Field(default=0, description="of the tasks")
        gyms: tuple[str, ...] = Field(
            default=(), description="to practise in; all that are installed if empty"
        )
        levels: tuple[int, ...] = Field(
            default=(1,),
            min_length=1,
            description="1 takes a few turns, 2 more, 3 up to 100: allow simulator.max_turns=120",
        )
        profiles: tuple[str, ...] = Field(
            default=("calm",), min_length=1, description="conditions to train under: calm, shifting, hostile"
        )
        held_out_profiles: tuple[str, ...] = Field(
            default=tuple(PROFILES), min_length=1, description="conditions to measure under"
        )

        @field_validator("levels")
        @classmethod
        def _known_levels(cls, levels: tuple[int, ...]) -> tuple[int, ...]:
            if not set(levels) <= set(LEVELS):
                raise ValueError(f"levels are {', '.join(map(str, LEVELS))}")
            return levels

        @field_validator("profiles", "held_out_profiles")
        @classmethod
        def _known_profiles(cls, names: tuple[str, ...]) -> tuple[str, ...]:
            if unknown := [name for name in names if name not in PROFILES]:
                raise ValueError(f"no profile {unknown[0]!r}; {suggestion(unknown[0], PROFILES)}")
            return names

    config: Config
    suggests: ClassVar[Mapping[str, Any]] = {
        **BrowserEnv.suggests,
        "model": "tiny_web",
        "simulator.max_turns": 30,
        "tasks_per_step": 8,
    }
    suggests_with: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny_web": {
            **BrowserEnv.suggests_with["tiny_web"],
            # An expert takes up to 21 where conditions are hostile.
            "simulator.max_turns": 24,
            "warmup": 5,
            "steps": 80,
        }
    }
    # Gyms write down in their document what else the future depends on.
    remembers: ClassVar[bool] = False
    held_out_splits: ClassVar[frozenset[str]] = frozenset({"dev", "test"})

    def __init__(self, config: Any = None) -> None:
        """Open nothing yet."""
        super().__init__(config)
        self._backend: Backend | None = None

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the tasks of `train`, `dev` or `test`."""
        if split not in LENGTHS:
            raise UsageError(f"no split {split!r}: there is {', '.join(LENGTHS)}")
        config = self.config
        gyms = config.gyms or gym_names()
        for name in gyms:
            load_gym(name)
        profiles = config.profiles if split == "train" else config.held_out_profiles
        plan = Plan(config.seed, gyms, config.levels, profiles)
        return LazyTasks(partial(task_at, split, plan=plan), range(LENGTHS[split]))

    def pose(self, task: Task, seed: int) -> Scene:
        """Draw the problem from the task, the conditions from the task's profile and `seed`."""
        self._close_backend()
        self._problem = problem_of(task.data)
        gym, profile = load_gym(task.data["gym"]), profile_named(task.data["profile"])
        drawn = draw(profile, f"{task.data['seed']}/{seed}")
        self._conditions = drawn if gym.moves else replace(drawn, shifts=0)
        self._backend = Backend(gym, self._problem, self._conditions)
        return Scene(self._backend, self._problem.goal, script=self._backend.script)

    async def judge(self) -> Outcome:
        """Compare what happened with what was specified."""
        said = " ".join(str(value) for value in self.ending.arguments.values()) if self.ending else ""
        ending = self.ending.name if self.ending else None
        changes = self._backend.ledger.changes() if self._backend else []
        verdict = self._problem.specification.verify(changes, ending, said)
        return Outcome(
            verdict.success,
            answer=said or None,
            passed=verdict.passed,
            failed=(
                *(f"missing: {each}" for each in verdict.missing),
                *(f"forbidden: {each}" for each in verdict.forbidden),
            ),
            metrics={
                "actions": float(self.turns),
                "action_errors": float(self.errors),
                "missing": float(len(verdict.missing)),
                "forbidden": float(len(verdict.forbidden)),
            },
            tags=self._conditions.names,
        )

    def demonstrate(self, task: Task) -> Expert:
        """Return the gym's expert, who looks at the page."""
        return expert(load_gym(task.data["gym"]).expert(problem_of(task.data)))

    def explain(self, task: Task) -> str:
        """Return the specification in words."""
        return problem_of(task.data).specification.in_words()

    def _close_backend(self) -> None:
        if self._backend is not None:
            self._backend.close()
            self._backend = None

    async def close(self) -> None:
        """Close the page and the database."""
        await super().close()
        self._close_backend()
