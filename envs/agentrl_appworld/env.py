"""The env as agentrl sees it: which tasks there are, and how experts solve them."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from agentrl import Environment, PluginConfig, RemoteEnv, Sandbox, SetupStep
from agentrl.errors import UsageError
from agentrl.types import Need, Task

from .inside.playground import GROUND_TRUTH
from .worlds import ASKED, MISSING, World, find_world

_log = logging.getLogger(__name__)
SPLITS = ("train", "dev", "test_normal", "test_challenge")
ALL, EASY = (1, 2, 3), (1,)
SYSTEM = """\
You work for the person who writes to you, with the apis of their apps. Reply with one short thought and one \
block of python between ```python and ```; what it prints is shown to you, and variables are kept. Use \
apis.api_docs.show_api_descriptions(app_name=...) and apis.api_docs.show_api_doc(app_name=..., api_name=...) \
to learn about apis, and apis.supervisor.show_account_passwords() to log in. When everything is done, call \
apis.supervisor.complete_task(), with answer=... where a question was asked."""


class AppWorld(RemoteEnv):
    """Solve tasks in the apps of AppWorld by writing code."""

    class Config(PluginConfig):
        """Options."""

        world: Literal["auto", "small", "real"] = Field(
            default="auto", description="which tasks: the real ones if they are there, else our own"
        )
        difficulties: tuple[int, ...] | None = Field(
            default=None,
            min_length=1,
            description="of the tasks to play, 1 to 3; if not given, 1 in the small world and else all",
        )
        characters: int = Field(default=12_000, ge=200, description="of an observation, before it is cut")
        seconds: int = Field(default=30, ge=1, description="that the code of one turn may run")
        calls: int = Field(default=1000, ge=1, description="of apis in one turn")
        errors: int | None = Field(
            default=None, ge=1, description="turns in a row whose code failed, after which the episode ends"
        )
        sandbox: bool = Field(
            default=True, description="whether code of episodes runs within walls; else it can read answers"
        )

    config: Config
    provides: ClassVar[frozenset[Need]] = frozenset({"step_keys"})
    held_out_splits: ClassVar[frozenset[str]] = frozenset({"test_normal", "test_challenge"})
    # Task and scenario goal completion: the names under which others report them.
    whole_scenarios: ClassVar[bool] = True
    metric_names: ClassVar[Mapping[str, str]] = {"success": "TGC", "scenario_success": "SGC"}
    environment: ClassVar[Environment] = Environment(
        worker="inside/worker.py",
        judge="inside/judge.py",
        # A fork costs as much as a judgement: what the process touches first is copied.
        judgements=32,
        requirements=("appworld==0.1.3.post1",),
        steps=(
            SetupStep("unpack AppWorld's apps", ("-m", "appworld.cli", "install")),
            SetupStep(
                "build the small world",
                ("{package}/inside/set_up.py", "{files}"),
                sources=("inside/playground.py", "inside/small_world"),
            ),
            SetupStep(
                "download AppWorld's own data",
                ("{package}/inside/real_data.py", "{files}"),
                option="--data",
                help="download AppWorld's own tasks, too",
            ),
            SetupStep(
                "unpack AppWorld's own data",
                ("{package}/inside/real_data.py", "{files}", "{value}"),
                option="--bundle",
                value="FILE",
                help="take AppWorld's own tasks from a bundle that was downloaded elsewhere",
            ),
        ),
        python=">=3.11",
        variables={"APPWORLD_CACHE": "{files}/cache"},
        memory_mb=4096,
        preload_seconds=300.0,
        # Not the rest of the plugin: who knows how the small world is made can tell its answers.
        sandbox=Sandbox(
            readable=tuple(f"{{package}}/inside/{name}.py" for name in ("answers", "hastening", "opening"))
        ),
    )
    # The first reset of a check waits for the workers.
    checked_with: ClassVar[Mapping[str, Any]] = {"tasks": 2, "seconds": environment.preload_seconds}
    suggests: ClassVar[Mapping[str, Any]] = {
        "agent": "chat",
        "model": "tiny_code",
        "agent.system": SYSTEM,
        "rewards": {"success": 1.0},
        "simulator.max_turns": 40,
        "simulator.max_new_tokens": 512,
    }
    # It imitates the small world's experts first; an episode that has gone astray is not worth waiting for.
    suggests_with: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny_code": {
            # AppWorld's own tasks are beyond it.
            "env.world": "small",
            "warmup": 6,
            "warmup_learning_rate": 8e-4,
            "trainer.learning_rate": 4e-5,
            "trainer.warmup_steps": 5,
            "trainer.schedule": "linear",
            "trainer.betas": (0.9, 0.99),
            "trainer.epochs": 2,
            "trainer.minibatches": 8,
            # Without it, kinds of tasks in which nothing is to be learnt drift away.
            "algorithm.kl": "k2",
            "algorithm.kl_coefficient": 0.02,
            "steps": 40,
            "tasks_per_step": 32,
            "group_size": 4,
            "env.errors": 1,
            "simulator.temperature": 0.5,
            "simulator.max_turns": 4,
            "simulator.max_new_tokens": 160,
        }
    }

    @cached_property
    def world(self) -> World:
        """Return where the data is; say so if it is our own for want of the real.

        Raises:
            UsageError: the environment is not set up, or the real data is asked for and is not there.
        """
        found = find_world(self.config.world, self.site.require().files)
        if not found.real:
            why = MISSING if self.config.world == "auto" else ASKED
            _log.info("appworld plays a small world of our own tasks: %s (see docs/appworld.md)", why)
        return found

    @property
    def sandbox(self) -> Sandbox | None:
        """Return the walls, behind which the data can be seen but no ground truth, wherever it lies."""
        walls, play = super().sandbox, str(self.world.play)
        if walls is None:
            return None
        readable = (*walls.readable, f"{play}/data")
        truth = str((self.world.truth / "data").resolve())
        return replace(walls, readable=readable, writable=(f"{play}/experiments",), hidden=(truth,))

    def worker_config(self) -> Mapping[str, Any]:
        """Return what worker and judge get: the options, and where their data is."""
        roots = {"play_root": str(self.world.play), "truth_root": str(self.world.truth)}
        return {**super().worker_config(), **roots}

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the tasks of one of AppWorld's splits, in its order."""
        if split not in SPLITS:
            raise UsageError(f"no split {split!r}: there is {', '.join(SPLITS)}")
        if split not in self._tasks:
            path = self.world.truth / "data" / "datasets" / f"{split}.txt"
            found = [self._task(name, split) for name in path.read_text(encoding="utf-8").split()]
            played = self.config.difficulties or (ALL if self.world.real else EASY)
            self._tasks[split] = [task for task in found if task.difficulty in played]
        return self._tasks[split]

    def demonstrate(self, task: Task) -> Sequence[str] | None:
        """Return an expert's turns: those of the small world, or the real data's solution as one turn."""
        truth = self._truth(task.id)
        if (truth / "turns.json").is_file():
            turns = json.loads((truth / "turns.json").read_text(encoding="utf-8"))
            return [f"```python\n{code}\n```" for code in turns]
        if not (truth / "compiled_solution.py").is_file():
            return None
        code = (truth / "compiled_solution.py").read_text(encoding="utf-8")
        return [f"```python\n{code}\nsolution(apis, requester)\n```"]

    def fingerprint(self) -> Mapping[str, str]:
        """Return the hash of what is asked in all tasks, of whom, and of how it is judged.

        Of databases, which are most of the data, the sizes count.
        """
        hashed, tasks = hashlib.sha256(), self.world.truth / "data" / "tasks"
        for pattern in ("*/specs.json", f"*/{GROUND_TRUTH}/*", "*/dbs/*"):
            for path in sorted(path for path in tasks.glob(pattern) if path.is_file()):
                hashed.update(f"{path.relative_to(tasks)} {path.stat().st_size}\n".encode())
                if path.parent.name != "dbs":
                    hashed.update(path.read_bytes())
        return {"tasks": hashed.hexdigest()}

    @cached_property
    def _tasks(self) -> dict[str, list[Task]]:
        return {}

    def _task(self, name: str, split: str) -> Task:
        metadata = json.loads((self._truth(name) / "metadata.json").read_text(encoding="utf-8"))
        scenario = name.rpartition("_")[0]
        # Those of the small world are called after what is to be done, and numbered.
        labels = {} if self.world.real else {"kind": scenario.rstrip("0123456789")}
        return Task(name, split, scenario=scenario, difficulty=metadata["difficulty"], labels=labels)

    def _truth(self, name: str) -> Path:
        return self.world.truth / "data" / "tasks" / name / GROUND_TRUTH
