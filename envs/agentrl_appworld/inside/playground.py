"""Copy AppWorld's data without what an episode must not see. Standard library only.

An episode's process gets the copy, the judge's process the original: code that a model wrote runs in the
former, and no path or import leads it to an answer.
"""

import shutil
from pathlib import Path

GROUND_TRUTH = "ground_truth"


def has_data(root: Path) -> bool:
    """Return whether `root`/data holds AppWorld's data, with the ground truth of the training tasks."""
    try:
        first = (root / "data" / "datasets" / "train.txt").read_text(encoding="utf-8").split()[0]
    except (OSError, IndexError):
        return False
    task = root / "data" / "tasks" / first
    return (task / "specs.json").is_file() and (task / GROUND_TRUTH / "metadata.json").is_file()


def copy_without_truth(source: Path, target: Path) -> None:
    """Copy `source`/data to `target`/data but for every ground truth; what was there is replaced.

    The files are copies, not links: whatever is done to them cannot reach the original.
    """
    workshop = target / "being_copied"
    shutil.rmtree(workshop, ignore_errors=True)
    shutil.copytree(source / "data", workshop, ignore=shutil.ignore_patterns(GROUND_TRUTH))
    shutil.rmtree(target / "data", ignore_errors=True)
    workshop.rename(target / "data")
