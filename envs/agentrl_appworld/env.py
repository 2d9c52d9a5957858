"""The env as agentrl sees it: which tasks there are, and how experts solve them."""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from agentrl import Environment, PluginConfig, RemoteEnv, SetupStep
from agentrl.errors import UsageError
from agentrl.types import Need, Task

SPLITS = ("train", "dev", "test_normal", "test_challenge")
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
        difficulties: tuple[int, ...] = Field(
            default=(1, 2, 3), min_length=1, description="of the tasks to play, 1 to 3"
        )
        turns: int = Field(default=40, ge=1, description="until an episode is over")
        characters: int = Field(default=12_000, ge=200, description="of an observation, before it is cut")
        seconds: int = Field(default=30, ge=1, description="that the code of one turn may run")
        calls: int = Field(default=1000, ge=1, description="of apis in one turn")

    config: Config
    provides: ClassVar[frozenset[Need]] = frozenset({"step_keys"})
    environment: ClassVar[Environment] = Environment(
        worker="inside/worker.py",
        judge="inside/judge.py",
        requirements=("appworld==0.1.3.post1",),
        steps=(
            SetupStep("unpack AppWorld's apps", ("-m", "appworld.cli", "install")),
            SetupStep("build the small world", ("{package}/inside/set_up.py", "{files}")),
        ),
        python=">=3.11",
        variables={"APPWORLD_CACHE": "{files}/cache"},
        memory_mb=4096,
        preload_seconds=300.0,
    )
    suggests: ClassVar[Mapping[str, Any]] = {
        "agent": "chat",
        "agent.system": SYSTEM,
        "rewards": {"success": 1.0},
        "simulator.max_turns": 40,
        "simulator.max_new_tokens": 512,
    }

    @cached_property
    def root(self) -> Path:
        """Return the folder whose data/ holds the tasks with their ground truth.

        Raises:
            UsageError: the environment is not set up, or the real data is asked for and is not there.
        """
        files = self.site.require().files
        real = (files / "real_play" / "data").is_dir()
        if self.config.world == "real" and not real:
            raise UsageError("the real data of AppWorld is not there; docs/appworld.md says how to get it")
        return files / ("real" if real and self.config.world != "small" else "small")

    def worker_config(self) -> Mapping[str, Any]:
        """Return what worker and judge get: the options, and where their data is."""
        play_root = self.root.with_name(f"{self.root.name}_play")
        return {**super().worker_config(), "play_root": str(play_root), "truth_root": str(self.root)}

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the tasks of one of AppWorld's splits, in its order."""
        if split not in SPLITS:
            raise UsageError(f"no split {split!r}: there is {', '.join(SPLITS)}")
        path = self.root / "data" / "datasets" / f"{split}.txt"
        found = [self._task(name, split) for name in path.read_text(encoding="utf-8").split()]
        return [task for task in found if task.difficulty in self.config.difficulties]

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

    def _task(self, name: str, split: str) -> Task:
        metadata = json.loads((self._truth(name) / "metadata.json").read_text(encoding="utf-8"))
        return Task(name, split, scenario=name.rpartition("_")[0], difficulty=metadata["difficulty"])

    def _truth(self, name: str) -> Path:
        return self.root / "data" / "tasks" / name / "ground_truth"
