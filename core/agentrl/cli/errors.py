"""Says in one sentence what went wrong, and keeps the traceback for those who want it."""

import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from agentrl.errors import AgentRLError

if TYPE_CHECKING:
    from agentrl.display import Display

INTERRUPTED = 130


@contextmanager
def shown(display: "Display", *, debug: bool) -> Iterator[None]:
    """Show the block on `display`, its warnings and notes included, and end the process if it fails."""
    _forward_logs(display)
    try:
        with display:
            yield
    except KeyboardInterrupt:
        typer.echo(f"stopped{_how_to_resume(display.folder)}", err=True)
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        raise SystemExit(report(error, debug=debug, folder=display.folder)) from error


def report(error: Exception, *, debug: bool, folder: Path | None = None) -> int:
    """Say what went wrong and return the exit code; the traceback goes to run.log in `folder`."""
    if isinstance(error, BrokenPipeError):
        # Whoever read our output has gone; Python must not try to flush it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if debug:
        traceback.print_exception(error)
    if isinstance(error, AgentRLError):
        typer.echo(f"error: {error}", err=True)
        _log(error, folder)
        return error.exit_code
    logged = _log(error, folder)
    where = f"the traceback is in {logged}" if logged else "run with --debug for the traceback"
    typer.echo(f"error: {type(error).__name__}: {error} ({where})", err=True)
    return 1


def _log(error: Exception, folder: Path | None) -> Path | None:
    """Append the traceback to the run's log, if there is a run and its disk takes it."""
    if folder is None:
        return None
    from agentrl.rundir import log_failure

    try:
        return log_failure(folder, error)
    except AgentRLError:  # the disk is full, say; the failure itself is what matters
        return None


def _how_to_resume(folder: Path | None) -> str:
    return f"; go on with: agentrl run --resume {folder}" if folder else ""


class _Forward(logging.Handler):
    """Passes what the platform and its plugins log on to the display."""

    def __init__(self, display: "Display") -> None:
        super().__init__(logging.INFO)
        self._display = display

    def emit(self, record: logging.LogRecord) -> None:
        """Show a warning as one, and a note of ours as a note."""
        if record.levelno >= logging.WARNING:
            self._display.warn(record.getMessage())
        elif record.name.startswith("agentrl"):
            self._display.note(record.getMessage())


def _forward_logs(display: "Display") -> None:
    root = logging.getLogger()
    root.addHandler(_Forward(display))
    root.setLevel(logging.INFO)
