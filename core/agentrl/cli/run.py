"""`agentrl run`: train."""

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentrl.cli import arguments
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
    debug: arguments.Debug = False,
) -> None:
    """Train a model in an env. Defaults < what plugins suggest < RUN_FILE < options < --set."""
    from agentrl.display import make_display

    display = make_display()
    with shown(display, debug=debug):
        flags = arguments.given(
            {
                "env": env,
                "algorithm": algorithm,
                "agent": agent,
                "rewards": arguments.parse_rewards(rewards) if rewards else None,
                "model": model,
                "engine": engine,
                "trainer": trainer,
                "steps": steps,
                "warmup": warmup,
                "seed": seed,
            }
        )
        config = _configuration(run_file, flags, sets or [], out, resume)
        prepare_environment(config.env.name, display, setup=setup)
        from agentrl.run import train

        _stop_on_terminate()
        train(config, resume or out, resume is not None, display)


def _configuration(
    run_file: Path | None, flags: dict[str, Any], sets: list[str], out: Path | None, resume: Path | None
) -> "RunConfig":
    from agentrl.config import load_run_file, resolve

    if resume:
        if run_file or out:
            what = "a run file" if run_file else "--out"
            raise UsageError(f"--resume goes on with the run as it is: leave {what} out")
        run_file = resume / "run.yaml"
        if not run_file.is_file():
            raise UsageError(f"there is no run in {resume}: it has no run.yaml")
    document = load_run_file(run_file) if run_file else {}
    return resolve(document, flags, sets, source=str(run_file or "run file"))


def _stop_on_terminate() -> None:
    """Have the signal by which schedulers end a job do what Ctrl-C does: save, then exit.

    Shells start background jobs with SIGINT ignored, which asyncio leaves so; SIGTERM has to work there.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
