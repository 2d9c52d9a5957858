"""The examples of programs of one's own train, with the built-in model, from their run files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("aiohttp", reason="install agentrl's extra 'endpoint' to try it")

EXAMPLES = Path(__file__).parents[2] / "examples" / "own_program"
SMALL = {
    "steps": 2,
    "agent.tool_format": "tags",
    "tasks_per_step": 2,
    "group_size": 4,
    "evaluation.tasks": 4,
    "threads": 1,
    "trainer.audit_threshold": 1e-3,
}


@pytest.mark.parametrize(("file", "library"), [("with_openai", "openai"), ("with_openai_agents", "agents")])
def test_an_example_trains(file: str, library: str, tmp_path: Path) -> None:
    pytest.importorskip(library, reason=f"the example {file}.py needs it")
    words = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
    run = [sys.executable, "-m", "agentrl", "run", f"{file}.yaml", "--out", str(tmp_path / "run"), *words]
    done = subprocess.run(run, cwd=EXAMPLES, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    for row in rows:
        assert row["failed"] == 0
        assert row["turns"] > 1, "it searched"
