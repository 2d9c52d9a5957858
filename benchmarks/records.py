"""What was measured before, run by run: a table over many runs may grow on several days and machines."""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add `--records` to a benchmark's options."""
    parser.add_argument(
        "--records",
        type=Path,
        help="file of runs measured before, which are not run again; new ones are added",
    )


def recorded(
    path: Path | None, name: str, asked: Mapping[str, Any], measure: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Return what the run `name` came to: as `path` has it, or as measured now, which is added there.

    Raises:
        SystemExit: it was measured, but with other settings than those `asked` for.
    """
    asked = json.loads(json.dumps(asked))
    lines = path.read_text().splitlines() if path is not None and path.exists() else []
    for record in map(json.loads, lines):
        if record["run"] == name:
            if record["asked"] != asked:
                raise SystemExit(
                    f"{path} has {name} with {record['asked']}, but {asked} is asked for: name another file"
                )
            return record
    record = {"run": name, "asked": asked, **measure()}
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps(record) + "\n")
    return record
