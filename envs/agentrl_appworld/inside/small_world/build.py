"""Put the small world together. AppWorld is told its root folder first, then imported."""

import os
import shutil
import time
from collections.abc import Collection, Iterator
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .words import TENTHS, people, things

if TYPE_CHECKING:
    from .tasks import Plan

# Scenarios of a kind in each split; AppWorld poses each scenario in three variants.
SCENARIOS = {"train": 12, "dev": 4, "test_normal": 4}
# Of the easiest kinds, which small models begin with: who has seen few details learns them by heart.
EASY = {**SCENARIOS, "train": 24}
VARIANTS = 3


def build(root: Path, seed: int = 0, fewer: int = 1, only: Collection[str] = ()) -> dict[str, Any]:
    """Write `root`/data anew; return how many tasks each split has, and how many seconds it took.

    The world is written beside the old one first, so that an interrupted build leaves nothing half done.

    Args:
        root: folder that becomes $APPWORLD_ROOT.
        seed: of names, values and wordings.
        fewer: 1 for everything, 3 for a third of the scenarios; at least one of a kind and split.
        only: names of kinds of tasks; none for all.
    """
    began = time.monotonic()
    root = root.absolute()
    workshop = root / "being_built"
    shutil.rmtree(workshop, ignore_errors=True)
    data = workshop / "data"
    data.mkdir(parents=True)
    os.environ["APPWORLD_ROOT"] = str(workshop)
    from appworld import update_root  # type: ignore[import-not-found]

    update_root(str(workshop))
    counts = _write(data, seed, fewer, only)
    shutil.rmtree(root / "data", ignore_errors=True)
    data.rename(root / "data")
    shutil.rmtree(workshop)
    return {"tasks": counts, "seconds": round(time.monotonic() - began, 1)}


def _write(data: Path, seed: int, fewer: int, only: Collection[str]) -> dict[str, int]:
    from appworld.common.constants import DB_VERSION  # type: ignore[import-not-found]

    from .base import write_base, write_docs

    write_docs(data)
    write_base(data, [person for split in TENTHS for person in people(split)])
    datasets = data / "datasets"
    datasets.mkdir()
    counts = {}
    posed: set[str] = set()
    for split in SCENARIOS:
        plans = [plan for plan in _plans(split, seed, fewer) if not only or plan.scenario.name in only]
        for plan in plans:
            _write_distinct(data, plan, posed)
        (datasets / f"{split}.txt").write_text("".join(f"{plan.id}\n" for plan in plans), encoding="utf-8")
        counts[split] = len(plans)
    # AppWorld expects the file; a challenge with apps never seen in training is not part of this world.
    (datasets / "test_challenge.txt").write_text("\n", encoding="utf-8")
    (data / "version.txt").write_text(DB_VERSION, encoding="utf-8")
    return counts


def _write_distinct(data: Path, plan: "Plan", posed: set[str]) -> None:
    """Write a task; where chance has posed it before, draw again."""
    from .tasks import write_task

    attempt = 0
    while (said := write_task(data, plan, attempt)) in posed:
        attempt += 1
    posed.add(said)


def _plans(split: str, seed: int, fewer: int) -> Iterator["Plan"]:
    from .kinds import KINDS
    from .tasks import Plan

    residents, objects = people(split), things(split)
    for scenario in KINDS:
        scenarios = EASY if scenario.difficulty == 1 else SCENARIOS
        before = sum(scenarios[name] for name in takewhile(lambda name: name != split, scenarios))
        for index in range(max(1, scenarios[split] // fewer)):
            number = before + index
            wording = scenario.wordings[number % len(scenario.wordings)]
            for variant in range(1, VARIANTS + 1):
                yield Plan(
                    id=f"{scenario.name}{number:02d}_{variant}",
                    scenario=scenario,
                    wording=wording,
                    people=residents,
                    things=objects,
                    seed=f"{seed}/{split}/{scenario.name}/{number}/{variant}",
                )
