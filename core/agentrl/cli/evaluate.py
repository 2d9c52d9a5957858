"""`agentrl eval`: measure a run, a checkpoint or a model on a split."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentrl.cli import arguments
from agentrl.cli.env import prepare_environment
from agentrl.cli.errors import shown
from agentrl.errors import UsageError

if TYPE_CHECKING:
    from agentrl.config import RunConfig


def evaluate(
    folder: Annotated[
        Path | None, typer.Argument(metavar="RUN_DIR", help="Run whose trained model is measured.")
    ] = None,
    env: arguments.Env = None,
    agent: arguments.Agent = None,
    rewards: arguments.Rewards = None,
    model: arguments.Model = None,
    engine: arguments.Engine = None,
    runtime: arguments.Runtime = None,
    step: Annotated[
        int | None, typer.Option("--step", help="Measure the checkpoint of this step instead of the end.")
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="Split of the env; by default: dev.")] = None,
    tasks: Annotated[int | None, typer.Option("--tasks", help="How many tasks are drawn from it.")] = None,
    repeats: Annotated[
        int | None, typer.Option("--repeats", help="Trajectories a task, for pass@k and pass^k.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", help="Of sampling; 0 takes the likeliest token.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Draws the tasks and plays them.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the result to this JSON file, too.")
    ] = None,
    sets: arguments.Sets = None,
    setup: arguments.Setup = False,
    debug: arguments.Debug = False,
) -> None:
    """Measure a model: every metric with its confidence interval."""
    from agentrl.display import make_display, wide_console
    from agentrl.plugins import load
    from agentrl.tables import evaluation_table, evaluation_title, tags_table

    display = make_display()
    with shown(display, debug=debug):
        flags = arguments.given(
            {
                "env": env,
                "agent": agent,
                "rewards": arguments.parse_rewards(rewards) if rewards else None,
                "model": model,
                "engine": engine,
                "runtime": runtime,
                "evaluation.split": split,
                "evaluation.tasks": tasks,
                "evaluation.repeats": repeats,
                "evaluation.temperature": temperature,
                "evaluation.seed": seed,
            }
        )
        config = _configuration(folder, flags, sets or [])
        prepare_environment(config.env.name, display, setup=setup)
        weights = _weights(folder, model, step)
        from agentrl.run import evaluate as measure

        evaluation = measure(config, weights, display)
        if out:
            from agentrl.files import write_json

            write_json(out, evaluation.to_json(), "the evaluation")
    console = wide_console()
    console.print(evaluation_title(evaluation))
    console.print(evaluation_table(evaluation, load("env", config.env.name).metric_names))
    if evaluation.tags:
        console.print("conditions that episodes were played under, the most harmful first")
        console.print(tags_table(evaluation))


def _weights(folder: Path | None, model: str | None, step: int | None) -> Path | None:
    """Return the folder of the model to measure; None means the configured model."""
    if folder is None:
        if step is not None:
            raise UsageError("--step is of a run: name the run directory")
        return None
    if model is not None:
        if step is not None:
            raise UsageError("--model and --step exclude one another")
        return None
    if step is not None:
        return _of_step(folder, step)
    if not (folder / "model").is_dir():
        raise UsageError(
            f"the run in {folder} has not ended, so it has no model yet; finish it with "
            f"agentrl run --resume {folder}, or choose a checkpoint with --step"
        )
    return folder / "model"


def _of_step(folder: Path, step: int) -> Path:
    from agentrl.checkpoints import Checkpoints

    path = Checkpoints(folder / "checkpoints", keep=1).at(step) / "model"
    if not path.is_dir():
        raise UsageError(f"the checkpoint of step {step} in {folder} holds no model that could be played")
    return path


def _configuration(folder: Path | None, flags: dict[str, Any], sets: list[str]) -> "RunConfig":
    from agentrl.config import load_run_file, resolve

    if folder is None:
        return resolve({}, flags, sets)
    path = folder / "run.yaml"
    if not path.is_file():
        raise UsageError(f"there is no run in {folder}: it has no run.yaml")
    return resolve(load_run_file(path), flags, sets, source=str(path))
