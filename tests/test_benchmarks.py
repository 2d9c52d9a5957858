"""Benchmarks: that they run, and that tables in docs/ are what was measured."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"
# The least that each can be asked for; what is missing here needs a GPU, a browser, AppWorld, vLLM or a peer.
SMALL = {
    "ahead.py": ["--only", "learning", "--staleness", "0", "1", "--seeds", "0", "--steps", "1"],
    "anywhere.py": ["--only", "torch", "--seeds", "0", "--steps", "1"],
    "gpu.py": ["--device", "cpu", "--small"],
    "sync.py": ["--device", "cpu", "--small"],
    "update_share.py": ["--prompts", "50", "--groups", "1", "--rounds", "1", "--models", "small"],
}
# The page that has the table of what was measured, and how else it is asked for.
PAGES: dict[str, tuple[str, ...]] = {
    "ahead": ("performance.md", "--only", "learning"),
    "anywhere": ("performance.md",),
    "appworld": ("appworld.md",),
    "pages": ("pages.md",),
}


def run(name: str, *arguments: str, cwd: Path) -> str:
    command = [sys.executable, str(BENCHMARKS / name), *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_benchmark_runs(name: str, tmp_path: Path) -> None:
    assert "\n|" in run(name, *SMALL[name], cwd=tmp_path)


def test_there_is_a_page_for_all_that_was_measured() -> None:
    assert {path.stem for path in (BENCHMARKS / "measured").iterdir()} == PAGES.keys()


@pytest.mark.parametrize("name", PAGES)
def test_the_table_of_a_page_is_what_was_measured(name: str, tmp_path: Path) -> None:
    file, *how = PAGES[name]
    page, records = ROOT / "docs" / file, BENCHMARKS / "measured" / f"{name}.jsonl"
    report = tmp_path / page.name
    report.write_text(page.read_text())
    run(
        f"{name}.py",
        *how,
        "--records",
        str(records),
        "--only-recorded",
        "--report",
        str(report),
        cwd=tmp_path,
    )
    assert report.read_text() == page.read_text()
