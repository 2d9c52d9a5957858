"""The training loop: collect groups (see `collection`), prepare, credit, update, evaluate, save.

Everything random derives from the run's seed and the step, and every step is recorded in one go after its
update; so a run may be stopped anywhere and goes on from its last checkpoint as if nothing had happened.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from agentrl.ahead import Ahead
from agentrl.collection import Collection, Collector
from agentrl.config import RunConfig
from agentrl.display import Display
from agentrl.early_signs import EarlySigns, FlatRewards
from agentrl.evaluation import evaluate
from agentrl.hooks import Hooks
from agentrl.interfaces import Algorithm, Curriculum, Engine, Trainer
from agentrl.judging import WeightedReward
from agentrl.metrics import rollout_metrics, staleness
from agentrl.panel import Panel
from agentrl.rundir import RunDirectory, load_metrics
from agentrl.simulator import Simulator
from agentrl.task_record import task_rows
from agentrl.together import in_thread
from agentrl.types import Group
from agentrl.usage import memory_metrics

T = TypeVar("T")


@dataclass(slots=True)
class Progress:
    """How far a run has come: updates, trained episodes, sampled tokens, seconds of wall time."""

    step: int = 0
    trajectories: int = 0
    tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Parts:
    """The rooms that the data goes through, in their order."""

    curriculum: Curriculum
    simulator: Simulator
    rewards: Sequence[WeightedReward]
    hooks: Hooks
    trainer: Trainer
    algorithm: Algorithm
    engine: Engine


class Loop:
    """Trains until the configured number of updates is done."""

    def __init__(
        self,
        parts: Parts,
        config: RunConfig,
        panel: Panel,
        directory: RunDirectory,
        display: Display,
        progress: Progress,
        began: float,
    ) -> None:
        """Take the parts, the held-out tasks, where to write and whom to show.

        `began` is when this process began to work on the run, on the monotonic clock.
        """
        self._parts = parts
        self._config = config
        self._panel = panel
        self._directory = directory
        self._display = display
        self._saved = progress.step
        self._consistent = True
        self._audited = self._failed = False
        self._signs = EarlySigns(config, display.warn)
        self._flat = FlatRewards(display.warn)
        collector = Collector(
            parts.curriculum,
            parts.simulator,
            parts.rewards,
            parts.hooks,
            parts.algorithm,
            config,
            display.episodes,
        )
        self._ahead = Ahead(collector, config.staleness, config.steps)
        self._clock = began
        self._curriculum_state = parts.curriculum.state()
        self.progress = progress

    async def run(self) -> None:
        """Evaluate and train in turn."""
        try:
            while True:
                if self._evaluation_due():
                    await self.evaluate()
                if self.progress.step >= self._config.steps:
                    break
                await self.step()
        finally:
            await self._ahead.close()
        self.save()

    async def step(self) -> None:
        """Do one update: everything after the episodes happens without a pause."""
        parts, step, began = self._parts, self.progress.step + 1, time.monotonic()
        worked = parts.simulator.activities.seconds()
        await self._give_weights()
        collection = await self._ahead.take(step)
        rollout = time.monotonic() - began
        if not self._config.staleness:
            await parts.engine.sleep()
        self._consistent = False
        metrics = {**rollout_metrics(collection.played), **await self._learn(collection)}
        elapsed = time.monotonic() - began
        metrics |= {"time/rollout": rollout, "time/update": elapsed - rollout}
        metrics |= parts.simulator.activities.shares(worked, elapsed) | memory_metrics()
        self._record(step, collection, metrics)
        self._consistent = True
        self._tell(step, collection.played, metrics)
        if self._config.checkpoints.every and step % self._config.checkpoints.every == 0:
            await self._aside(self.save)
        if not self._config.staleness:
            await parts.engine.wake()

    async def evaluate(self) -> None:
        """Play the held-out tasks and record how it went."""
        parts, step = self._parts, self.progress.step
        self._display.phase("evaluate", f"{len(self._panel.tasks)} held-out tasks")
        await self._give_weights()
        evaluation, groups = await evaluate(
            parts.simulator,
            self._panel,
            self._config.evaluation,
            parts.rewards,
            self._display.episodes,
        )
        self._directory.write_trajectories(f"eval-{step:06d}", groups)
        earlier, metrics = self._directory.evaluations(), load_metrics(self._directory.path)
        beside = self._signs.look(step, evaluation, earlier, metrics)
        self._directory.write_evaluation(step, evaluation, **beside.to_json())
        self._tick()
        self._display.evaluated(step, evaluation, beside)
        parts.hooks.evaluated(step, {**evaluation.means(), **beside.numbers()})

    def save(self) -> None:
        """Write a checkpoint of the last recorded step, unless there is one.

        A second Ctrl-C can interrupt an update in its midst; its weights are of no step and are not saved.
        """
        step = self.progress.step
        if step == self._saved or not self._consistent:
            return
        path = self._directory.write_checkpoint(step, self._write_state)
        self._saved = step
        self._parts.hooks.checkpoint_saved(step, path)

    async def _learn(self, collection: Collection) -> dict[str, float]:
        """Update the weights; while episodes are played ahead, beside them."""
        kept = collection.usable()
        # Where nothing is played ahead, the newest weights have sampled everything, whoever says otherwise.
        version = self.progress.step if self._config.staleness else None
        if not kept:
            self._display.warn("no group was kept, so this step updates nothing")
            return {"groups/kept": 0.0}
        shown = {"groups/kept": len(kept) / len(collection.played)}
        if version is not None:
            shown |= staleness(kept, version)
        return shown | await self._aside(lambda: self._update(kept, version))

    async def _give_weights(self) -> None:
        """Let the engine generate with the trainer's weights."""
        weights = await self._aside(self._parts.trainer.weights)
        await self._parts.engine.load_weights(weights, self.progress.step)

    async def _aside(self, work: Callable[[], T]) -> T:
        """Let the trainer work; where episodes are under way, in a thread, for their time goes on."""

        def at_work() -> T:
            with self._parts.simulator.activities.trainer:
                return work()

        return await in_thread(at_work) if self._config.staleness else at_work()

    def _update(self, groups: list[Group], version: int | None) -> dict[str, float]:
        parts = self._parts
        batch = parts.trainer.prepare(groups, parts.algorithm.needs, version)
        credits = parts.algorithm.credit(batch)
        metrics = parts.trainer.update(batch, credits, parts.algorithm)
        noted = {f"credit/{name}": number for name, number in batch.logged.items()}
        return {**noted, **metrics}

    def _record(self, step: int, collection: Collection, metrics: dict[str, float]) -> None:
        progress, groups = self.progress, collection.played
        progress.step = step
        progress.trajectories += sum(len(group.trajectories) for group in groups)
        progress.tokens += sum(t.sampled for group in groups for t in group.trajectories)
        self._tick()
        # Who plays on moves the curriculum on; a checkpoint is of the step that was recorded.
        self._curriculum_state = self._ahead.curriculum_state(step)
        self._directory.write_trajectories(f"step-{step:06d}", groups)
        self._directory.write_tasks(step, task_rows(groups, collection.kept))
        self._directory.write_metrics(step, metrics)

    def _tell(self, step: int, groups: list[Group], metrics: dict[str, float]) -> None:
        """Show the step."""
        self._show_audit(metrics)
        self._show_failures(groups)
        self._flat.look(groups)
        self._display.step(step, self._config.steps, metrics)
        self._parts.hooks.step_finished(step, metrics)

    def _show_audit(self, metrics: dict[str, float]) -> None:
        """Say once how far engine and trainer are apart; every step's number is in the metrics."""
        difference = metrics.get("audit/max_logprob_difference")
        if difference is not None and not self._audited:
            self._audited = True
            self._display.note(
                f"token audit: engine and trainer agree on the log-probability of every token that was "
                f"compared to {difference:.1e} nats"
            )

    def _show_failures(self, groups: list[Group]) -> None:
        """Say once why episodes fail; how many is shown at every step."""
        causes = [t.error for group in groups for t in group.trajectories if t.failed]
        if causes and not self._failed:
            self._failed = True
            self._display.warn(
                f"{len(causes)} episodes of this step failed, for example: {causes[0]}; they teach "
                "nothing, and their causes are in trajectories/"
            )

    def _tick(self) -> None:
        now = time.monotonic()
        self.progress.seconds += now - self._clock
        self._clock = now

    def _write_state(self, folder: Path) -> None:
        self._parts.trainer.save(folder / "trainer")
        self._parts.trainer.save_model(folder / "model")
        state = {"progress": asdict(self.progress), "curriculum": self._curriculum_state}
        (folder / "state.json").write_text(json.dumps(state))

    def _evaluation_due(self) -> bool:
        step, every = self.progress.step, self._config.evaluation.every
        due = step == 0 or step >= self._config.steps or (every > 0 and step % every == 0)
        return due and not self._directory.has_evaluation(step)
