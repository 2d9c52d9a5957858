"""Build the small world, and a copy of it without ground truth to play in.

    python set_up.py FILES

Run by `agentrl env setup appworld`, in AppWorld's interpreter. FILES/small gets the small world, and
FILES/small_play the copy. Done twice, it does the same again.
"""

import sys
from pathlib import Path

from playground import copy_without_truth  # type: ignore[import-not-found]
from small_world.build import build  # type: ignore[import-not-found]


def main() -> None:
    """Do it."""
    files = Path(sys.argv[1]).absolute()
    print("small world:", build(files / "small"), flush=True)
    copy_without_truth(files / "small", files / "small_play")


if __name__ == "__main__":
    main()
