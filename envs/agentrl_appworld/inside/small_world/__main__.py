"""Build the small world from the command line."""

import argparse
import json
from pathlib import Path

from .build import build


def main() -> None:
    """Build the world that the arguments ask for, and print its sizes as JSON."""
    parser = argparse.ArgumentParser(prog="small_world", description="Build a small world for AppWorld.")
    parser.add_argument("root", type=Path, help="folder to become $APPWORLD_ROOT; data/ in it is replaced")
    parser.add_argument("--seed", type=int, default=0, help="of names, values and wordings")
    parser.add_argument("--fewer", type=int, default=1, help="make only one scenario of so many: for tests")
    parser.add_argument("--only", nargs="*", default=[], help="names of kinds of tasks: for tests")
    arguments = parser.parse_args()
    print(json.dumps(build(arguments.root, arguments.seed, arguments.fewer, arguments.only)))


if __name__ == "__main__":
    main()
