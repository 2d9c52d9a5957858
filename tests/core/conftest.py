"""What tests of the core share.

Throw-away distributions with real entry points, a toy plugin of every kind that needs no torch, and envs that
are set up in another virtual environment.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from elsewhere import pretend, pythons

TOY = '''
from typing import ClassVar
from pydantic import Field
from agentrl import *


class ToyEnv(Env):
    """A world with one door."""

    class Config(PluginConfig):
        """Options.

        Attributes:
            doors: how many doors
                there are.
        """
        doors: int = 1
        words: tuple[str, ...] = ("a", "b")
        colour: str | None = Field(default=None, description="of the doors")

    suggests: ClassVar = {
        "agent": "toy", "rewards": {"toy": 1.0, "extra": 0.0}, "engine": "toy", "trainer": "toy",
        "model": "toy", "algorithm": "toy", "simulator.max_turns": 3,
    }

    def tasks(self, split): return [Task(f"{split}-{n}", split) for n in range(5)]
    async def reset(self, task, seed): return Observation("go")
    async def step(self, action): return Observation("", done=True)
    async def judge(self): return Outcome(success=True)
    def fingerprint(self): return {"doors": str(self.config.doors)}


class ToyAgent(Agent):
    class Config(PluginConfig):
        patience: int = 2
    async def act(self, observation, conversation): return Action("open")


class ToyReward(Reward):
    class Config(PluginConfig):
        scale: float = 1.0
    async def score(self, trajectory): return float(trajectory.outcome.success)


class ToyAlgorithm(Algorithm):
    class Config(PluginConfig):
        clip: float = Field(default=0.2, gt=0)
    suggests: ClassVar = {"trainer.rate": 0.5, "simulator.max_turns": 4}
    def credit(self, batch): return []
    def loss(self, tokens): return tokens.logprobs


class ToyEngine(Engine):
    async def start(self, model, resources): pass
    async def generate(self, token_ids, sampling, session): return Completion([1], [0.0], "stop")
    async def load_weights(self, weights, version): pass


class ToyTrainer(Trainer):
    class Config(PluginConfig):
        rate: float = 0.1
    def start(self, model, needs, steps, resources): pass
    def prepare(self, groups, needs, version=None): return Batch(groups)
    def update(self, batch, credits, algorithm): return {}
    def weights(self): return {}
    def save(self, folder): pass
    def load(self, folder): pass
    def save_model(self, folder): pass


class OtherTrainer(ToyTrainer):
    class Config(PluginConfig):
        speed: int = 1


class QuickTrainer(ToyTrainer):
    class Config(PluginConfig):
        rate: float = 10.0


class ToyModel(Model):
    suggests: ClassVar = {"seed": 7}
    def path(self): raise NotImplementedError
'''
TOY_ENTRY_POINTS = {
    "agentrl.envs": {"toy": "ToyEnv"},
    "agentrl.agents": {"toy": "ToyAgent"},
    "agentrl.rewards": {"toy": "ToyReward", "extra": "ToyReward"},
    "agentrl.algorithms": {"toy": "ToyAlgorithm"},
    "agentrl.engines": {"toy": "ToyEngine"},
    "agentrl.trainers": {"toy": "ToyTrainer", "other": "OtherTrainer", "quick": "QuickTrainer"},
    "agentrl.models": {"toy": "ToyModel"},
}

Install = Callable[..., Path]


def write_distribution(
    site: Path,
    name: str,
    entry_points: Mapping[str, Mapping[str, str]],
    modules: Mapping[str, str],
    version: str = "1.0",
    requires: Sequence[str] = (),
) -> None:
    """Write what pip would leave in site-packages."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    extras = sorted({line.split("'")[1] for line in requires if "extra ==" in line})
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Provides-Extra: {extra}" for extra in extras]
    lines += [f"Requires-Dist: {line}" for line in requires]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    groups = [
        f"[{group}]\n" + "\n".join(f"{k} = {v}" for k, v in each.items())
        for group, each in entry_points.items()
    ]
    (info / "entry_points.txt").write_text("\n\n".join(groups) + "\n")
    for module, text in modules.items():
        (site / f"{module}.py").write_text(text)


@pytest.fixture
def install(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install distributions for this test and the processes it starts."""
    site = tmp_path_factory.mktemp("site")
    before = set(sys.modules)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.delenv("AGENTRL_DISABLE_PLUGINS", raising=False)

    def write(name: str, entry_points: Mapping[str, Mapping[str, str]], **rest: object) -> Path:
        write_distribution(site, name, entry_points, **rest)  # type: ignore[arg-type]
        return site

    yield write
    for module in set(sys.modules) - before:
        if getattr(sys.modules[module], "__file__", "") and str(site) in str(sys.modules[module].__file__):
            del sys.modules[module]


@pytest.fixture
def toys(install: Install) -> Path:
    """Install a toy plugin of every kind, called `toy`."""
    entry_points = {
        group: {name: f"toy_plugins:{target}" for name, target in each.items()}
        for group, each in TOY_ENTRY_POINTS.items()
    }
    return install("toy-plugins", entry_points, modules={"toy_plugins": TOY})


@pytest.fixture(params=pythons()[:1])
def python(request: pytest.FixtureRequest) -> str:
    """Return the oldest Python there is here."""
    return str(request.param)


@pytest.fixture
def elsewhere(tmp_path: Path, python: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have the envs of tests/support/elsewhere.py set up, and return the folder of their code."""
    pretend(python, tmp_path, monkeypatch)
    return tmp_path
