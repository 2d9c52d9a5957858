"""Sees a run through: what `agentrl run` and `agentrl eval` call, and what Python users may call."""

import asyncio
import json
import shutil
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from agentrl import plugins, probe
from agentrl.assembly import Stage, check_needs, model_path, stage
from agentrl.config import RunConfig
from agentrl.display import Display
from agentrl.errors import AgentRLError
from agentrl.evaluation import Evaluation
from agentrl.evaluation import evaluate as evaluate_panel
from agentrl.files import writing
from agentrl.hooks import Hooks
from agentrl.interfaces import Algorithm, Curriculum, Trainer
from agentrl.loop import Loop, Parts, Progress
from agentrl.panel import Panel, draw_panel
from agentrl.placement import place_here
from agentrl.run_files import render
from agentrl.rundir import RunDirectory, load_metrics
from agentrl.summary import UNTRAINED, summarize_run
from agentrl.warmup import Demonstrator, warm_up


def train(config: RunConfig, folder: Path | None, resume: bool, display: Display) -> dict[str, Any]:
    """Train as `config` says, and return the summary that is also written to the run directory.

    Args:
        config: complete and validated (see `config.resolve`).
        folder: the run directory; None chooses a new one.
        resume: go on from the last checkpoint in `folder`.
        display: shows how it goes.

    Raises:
        AgentRLError: what went wrong, in one sentence; everything recorded so far stays.
        KeyboardInterrupt: after Ctrl-C, once a checkpoint is saved.
    """
    with RunDirectory.open(config, folder, resume=resume) as directory:
        return asyncio.run(_Run(config, directory, display).train())


def evaluate(config: RunConfig, model: Path | None, display: Display) -> Evaluation:
    """Play `config.evaluation` with the model in a folder, or with the configured one."""
    return asyncio.run(_evaluate(config, model, display))


async def _evaluate(config: RunConfig, model: Path | None, display: Display) -> Evaluation:
    hooks, settings = Hooks(options=config.hooks), config.evaluation
    measured_at = config.simulator.temperature if settings.temperature is None else settings.temperature
    if settings.repeats > 1 and measured_at == 0:
        display.warn(
            f"at temperature 0 the {settings.repeats} episodes of a task differ by the env's chance only, "
            "so pass@k says little: measure at another temperature"
        )
    async with stage(config, model or model_path(config), hooks, display) as parts:
        return await _measure(parts, held_out(parts))


async def _measure(parts: Stage, panel: Panel) -> Evaluation:
    settings, progress = parts.config.evaluation, parts.display.episodes
    parts.display.phase("evaluate", f"{len(panel.tasks)} tasks of {panel.split}")
    evaluation, _ = await evaluate_panel(parts.simulator(), panel, settings, parts.rewards, progress)
    return evaluation


def held_out(parts: Stage) -> Panel:
    """Return the panel of tasks that the run is measured on."""
    env, settings = parts.env, parts.config.evaluation
    return draw_panel(
        env.tasks(settings.split),
        settings.tasks,
        settings.seed,
        settings.split,
        whole_scenarios=env.whole_scenarios,
    )


def save_model(trainer: Trainer, folder: Path) -> None:
    """Write the actor to `folder`, which is there only once it is complete.

    Raises:
        AgentRLError: it cannot be written.
    """
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    with writing(folder, "the model"):
        for old in (unfinished, folder):
            shutil.rmtree(old, ignore_errors=True)
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        trainer.save_model(unfinished)
        unfinished.rename(folder)


class _Run:
    """One training run, from assembly to summary."""

    def __init__(self, config: RunConfig, directory: RunDirectory, display: Display) -> None:
        self.config = config
        self.directory = directory
        self.display = display
        self.began = time.monotonic()
        choice = config.algorithm
        self.algorithm: Algorithm = plugins.make("algorithm", choice.name, choice.options)
        self.hooks = Hooks(options=config.hooks)
        # Such as one that does not keep every group; `agentrl eval` has no algorithm.
        self.hooks.invite(self.algorithm, choice.name)

    async def train(self) -> dict[str, Any]:
        """Tell the hooks when the run begins and how it ends."""
        error: BaseException | None = None
        self.display.started(render(self.config), self.directory.path)
        self.hooks.run_started(self.config, self.directory.path)
        try:
            return await self._train()
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._tell_hooks(error)

    def _tell_hooks(self, error: BaseException | None) -> None:
        """Tell the hooks that the run is over; what they make of it must not hide why it ended."""
        try:
            self.hooks.run_finished(error)
        except AgentRLError as failure:
            if error is None:
                raise
            self.display.warn(str(failure))

    async def _train(self) -> dict[str, Any]:
        config, model = self.config, model_path(self.config)
        trainer = plugins.make("trainer", config.trainer.name, config.trainer.options)
        needs = check_needs(self.algorithm, trainer, plugins.load("env", config.env.name), config)
        self.display.placed(place_here(config))
        async with stage(config, model, self.hooks, self.display, self.directory.path, trainer) as parts:
            panel = held_out(parts)
            self.directory.write_manifest(config, parts.env, panel.tasks, model)
            if config.warmup:
                model = await self._warmed_up(parts, model, panel)
            # A trainer may need more room while it starts than ever after, for whole models, say.
            await parts.engine.sleep()
            trainer.start(model, needs, config.steps, parts.resources)
            try:
                await parts.engine.wake()
                loop = self._loop(parts, panel, trainer)
                if probe.wanted(config):
                    await probe.probe(parts, trainer, self.algorithm)
                await self._improve(loop)
                save_model(trainer, self.directory.path / "model")
                return self._summarize(loop.progress)
            finally:
                trainer.close()

    async def _improve(self, loop: Loop) -> None:
        """Train; whatever ends it on the way, save what is recorded."""
        try:
            await loop.run()
        except BaseException:
            self._save(loop)
            raise

    def _save(self, loop: Loop) -> None:
        """Write a checkpoint; that it cannot be written must not hide why the run ended."""
        try:
            loop.save()
        except AgentRLError as failure:
            self.display.warn(str(failure))

    def _loop(self, parts: Stage, panel: Panel, trainer: Trainer) -> Loop:
        """Return the loop, where the last checkpoint left it."""
        curriculum = self._curriculum(parts)
        progress = Progress()
        checkpoint = self.directory.latest_checkpoint()
        if checkpoint:
            state = json.loads((checkpoint / "state.json").read_text())
            progress = Progress(**state["progress"])
            curriculum.restore(state["curriculum"])
            trainer.load(checkpoint / "trainer")
        rooms = Parts(
            curriculum=curriculum,
            simulator=parts.simulator(),
            rewards=parts.rewards,
            hooks=self.hooks,
            trainer=trainer,
            algorithm=self.algorithm,
            engine=parts.engine,
        )
        return Loop(rooms, self.config, panel, self.directory, self.display, progress, self.began)

    def _curriculum(self, parts: Stage) -> Curriculum:
        choice = self.config.curriculum
        curriculum = plugins.make("curriculum", choice.name, choice.options)
        curriculum.start(parts.env.tasks(self.config.train_split), self.config.seed)
        return curriculum

    async def _warmed_up(self, parts: Stage, model: Path | str, panel: Panel) -> Path:
        """Return the model that has imitated the env's demonstrations, made now or before a resume."""
        folder: Path = self.directory.path / "warmup"
        model_folder = folder / "model"
        if model_folder.is_dir():
            return model_folder
        self.directory.write_evaluation(UNTRAINED, await _measure(parts, panel))
        config = self.config
        options = {**config.trainer.options, "learning_rate": config.warmup_learning_rate}
        trainer = plugins.make("trainer", config.trainer.name, options)
        with closing(trainer):
            trainer.start(model, frozenset(), config.warmup, parts.resources)
            demonstrator = Demonstrator(parts.engine)
            await warm_up(
                parts.env,
                parts.simulator(demonstrator, demonstrator.guide),
                demonstrator,
                self._curriculum(parts),
                trainer,
                plugins.make("algorithm", "imitation", {}),
                config.warmup,
                config.tasks_per_step * config.group_size,
                self._report_warmup,
            )
            save_model(trainer, model_folder)
        return model_folder

    def _report_warmup(self, update: int, metrics: dict[str, float]) -> None:
        self.display.phase(
            "warm up", f"update {update} of {self.config.warmup}, loss {metrics['trainer/loss']:.3f}"
        )

    def _summarize(self, progress: Progress) -> dict[str, Any]:
        names = plugins.load("env", self.config.env.name).metric_names
        metrics = load_metrics(self.directory.path)
        summary = summarize_run(self.directory.evaluations(), progress, names, metrics)
        self.directory.write_summary(summary)
        self.display.finished(summary)
        return summary
