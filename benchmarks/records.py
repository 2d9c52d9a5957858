"""What was measured before, run by run: a table over many runs may grow on several days and machines."""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add `--records` and `--only-recorded` to a benchmark's options."""
    parser.add_argument(
        "--records",
        type=Path,
        help="file of runs measured before, which are not run again; new ones are added",
    )
    parser.add_argument(
        "--only-recorded", action="store_true", help="measure nothing: take what --records has"
    )


class NotMeasuredError(SystemExit):
    """Nobody has measured a run, and nobody is to do it now."""


def recorded(
    options: argparse.Namespace, name: str, asked: Mapping[str, Any], measure: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Return what the run `name` came to: as `--records` has it, or as measured now, which is added there.

    Raises:
        NotMeasuredError: it is not there, and nothing is to be measured.
        SystemExit: it was measured, but with other settings than those `asked` for.
    """
    path: Path | None = options.records
    asked = json.loads(json.dumps(asked))
    lines = path.read_text().splitlines() if path is not None and path.exists() else []
    for record in map(json.loads, lines):
        if record["run"] == name:
            if record["asked"] != asked:
                raise SystemExit(
                    f"{path} has {name} with {record['asked']}, but {asked} is asked for: name another file"
                )
            return record
    if options.only_recorded:
        raise NotMeasuredError(f"{name} has not been measured")
    record = {"run": name, "asked": asked, **measure()}
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps(record) + "\n")
    return record
