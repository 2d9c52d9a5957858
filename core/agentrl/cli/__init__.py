"""The command `agentrl`. What is heavy is imported by the command that needs it, when it runs."""

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, NoReturn

import typer

import agentrl
from agentrl.cli.check import check
from agentrl.cli.doctor import doctor
from agentrl.cli.env import commands as env_commands
from agentrl.cli.errors import report
from agentrl.cli.evaluate import evaluate
from agentrl.cli.new import new
from agentrl.cli.play import play
from agentrl.cli.plugins import commands as plugin_commands
from agentrl.cli.rescore import rescore
from agentrl.cli.run import run
from agentrl.cli.tasks import tasks
from agentrl.errors import PluginError

_COMMANDS: dict[str, Callable[..., None]] = {
    "run": run,
    "eval": evaluate,
    "tasks": tasks,
    "rescore": rescore,
    "new": new,
    "check": check,
    "doctor": doctor,
}

env_commands.command("play")(play)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 success, 1 failure, 2 wrong usage, 130 Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(given)(given, prog_name="agentrl")
    except Exception as error:
        sys.exit(report(error, debug="--debug" in given))
    sys.exit(0)


def app(arguments: Sequence[str]) -> typer.Typer:
    """Return the commands, with those of hook plugins if `arguments` might be about them."""
    made = typer.Typer(
        help=agentrl.__doc__,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(_options)
    for name, command in _COMMANDS.items():
        made.command(name)(command)
    made.add_typer(plugin_commands, name="plugins")
    made.add_typer(env_commands, name="env")
    # A shipped command imports no hook plugin that it does not use.
    if not any(argument in (*_COMMANDS, "plugins", "env") for argument in arguments[:1]):
        _add_plugin_commands(made)
    return made


def _add_plugin_commands(made: typer.Typer) -> None:
    from agentrl.hooks import Hooks

    def broken(error: PluginError) -> None:
        typer.echo(f"warning: {error}", err=True)

    Hooks(on_broken=broken).register_commands(made)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"agentrl {agentrl.__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    pass
