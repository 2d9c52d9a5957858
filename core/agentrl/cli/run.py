"""`agentrl run`: train."""

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentrl.cli import arguments
from agentrl.cli.dry_run import machine, show
from agentrl.cli.env import prepare_environment
from agentrl.cli.errors import shown
from agentrl.errors import UsageError

if TYPE_CHECKING:
    from agentrl.config import RunConfig


def run(
    run_file: Annotated[Path | None, typer.Argument(metavar="RUN_FILE", help="Run file in YAML.")] = None,
    env: arguments.Env = None,
    algorithm: Annotated[
        str | None, typer.Option("--algo", "--algorithm", help="Algorithm; by default: grpo.")
    ] = None,
    agent: arguments.Agent = None,
    rewards: arguments.Rewards = None,
    model: arguments.Model = None,
    engine: arguments.Engine = None,
    runtime: arguments.Runtime = None,
    trainer: Annotated[
        str | None, typer.Option("--trainer", help="Trainer that updates the weights.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Updates.")] = None,
    warmup: Annotated[
        int | None, typer.Option("--warmup", help="Updates that imitate the env's demonstrations first.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="All randomness derives from it.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Run directory; by default: runs/ENV-ALGORITHM-TIME.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="DIR", help="Go on with the run in this directory.")
    ] = None,
    sets: arguments.Sets = None,
    setup: arguments.Setup = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Play nothing: show what would sit where, and whether memory is there."
        ),
    ] = False,
    gpus: Annotated[
        str | None,
        typer.Option(
            "--gpus",
            metavar="[[M x] N x] GB",
            help="With --dry-run, elsewhere: 80 is a GPU of 80 GB, 8x80 are eight, 4x8x80 four machines.",
        ),
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(
            "--memory", min=1, help="With --gpus: GB of main memory that each machine has.", metavar="GB"
        ),
    ] = None,
    debug: arguments.Debug = False,
) -> None:
    """Train a model in an env. Defaults < what plugins suggest < RUN_FILE < options < --set."""
    from agentrl.display import Display, make_display, wide_console

    display = Display() if dry_run else make_display()
    with shown(display, debug=debug):
        flags = arguments.given(
            {
                "env": env,
                "algorithm": algorithm,
                "agent": agent,
                "rewards": arguments.parse_rewards(rewards) if rewards else None,
                "model": model,
                "engine": engine,
                "runtime": runtime,
                "trainer": trainer,
                "steps": steps,
                "warmup": warmup,
                "seed": seed,
            }
        )
        described = machine(gpus, memory, dry_run=dry_run)
        config = _configuration(run_file, flags, sets or [], out, resume, elsewhere=described is not None)
        if dry_run:
            show(config, described, wide_console())
            return
        prepare_environment(config.env.name, display, setup=setup)
        from agentrl.run import train

        _stop_on_terminate()
        train(config, resume or out, resume is not None, display)


def _configuration(
    run_file: Path | None,
    flags: dict[str, Any],
    sets: list[str],
    out: Path | None,
    resume: Path | None,
    *,
    elsewhere: bool,
) -> "RunConfig":
    """Return the configuration; `elsewhere` there are GPUs, whatever there is here."""
    from agentrl.config import load_run_file, resolve

    if resume:
        if run_file or out:
            what = "a run file" if run_file else "--out"
            raise UsageError(f"--resume goes on with the run as it is: leave {what} out")
        run_file = resume / "run.yaml"
        if not run_file.is_file():
            raise UsageError(f"there is no run in {resume}: it has no run.yaml")
    document = load_run_file(run_file) if run_file else {}
    if elsewhere and document.get("device", "auto") == "auto":
        flags = {**flags, "device": "cuda"}
    return resolve(document, flags, sets, source=str(run_file or "run file"))


def _stop_on_terminate() -> None:
    """Have the signal by which schedulers end a job do what Ctrl-C does: save, then exit.

    Shells start background jobs with SIGINT ignored, which asyncio leaves so; SIGTERM has to work there.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
