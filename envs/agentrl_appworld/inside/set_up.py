"""Prepare the data: the small world, and of every world a copy without ground truth to play in.

    python set_up.py FILES [--data]

Run by `agentrl env setup appworld`, in AppWorld's interpreter. FILES/small gets the small world, FILES/real
the real data where it is asked for, FILES/small_play and FILES/real_play their copies. Done twice, it does
the same again.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from playground import copy_without_truth  # type: ignore[import-not-found]
from small_world.build import build  # type: ignore[import-not-found]


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="set_up")
    parser.add_argument("files", type=Path)
    parser.add_argument("--data", action="store_true", help="download the real data as well")
    arguments = parser.parse_args()
    files: Path = arguments.files.absolute()
    made = build(files / "small")
    print("small world:", made, flush=True)
    copy_without_truth(files / "small", files / "small_play")
    if arguments.data:
        (files / "real").mkdir(parents=True, exist_ok=True)
        download = ["-m", "appworld.cli", "download", "data", "--root", str(files / "real")]
        subprocess.run([sys.executable, *download], check=True)
        copy_without_truth(files / "real", files / "real_play")


if __name__ == "__main__":
    main()
