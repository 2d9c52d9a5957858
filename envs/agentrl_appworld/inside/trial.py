"""Play or judge many episodes of which every word is known, for tests of the small world.

    python -m trial play ROOT     {"task", "seed", "said"} -> what was observed
    python -m trial judge ROOT    {"task", "seed", "records"} -> an outcome

A line of JSON asks, {"jobs": [...], "parallel": 2}, and a line of JSON answers, one result a job.
Every job has its own process, forked after the preload.
"""

import argparse
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Beside this file, over there; not in a package.
import judge  # type: ignore[import-not-found]
import worker  # type: ignore[import-not-found]

CONFIG: dict[str, Any] = {"characters": 12_000, "seconds": 30, "calls": 1000, "errors": None}


def main() -> None:
    """Do what the command line says, until no more lines come."""
    parser = argparse.ArgumentParser(prog="trial")
    parser.add_argument("what", choices=("play", "judge"))
    parser.add_argument("root", type=Path)
    arguments = parser.parse_args()
    # What AppWorld prints is no answer.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    config = CONFIG | {name: str(arguments.root.absolute()) for name in ("play_root", "truth_root")}
    module, work = (worker, play) if arguments.what == "play" else (judge, decide)
    module.preload(config)
    for line in sys.stdin:
        asked = json.loads(line)
        jobs = [{"config": config, **job} for job in asked["jobs"]]
        print(json.dumps(in_children(work, jobs, asked["parallel"])), file=answers, flush=True)


def play(job: dict[str, Any]) -> dict[str, Any]:
    """Play what was said, as far as the episode goes."""
    seen = [worker.reset({"id": job["task"]}, job["seed"], job["config"])]
    for text in job["said"]:
        seen.append(worker.step({"text": text}))
        if seen[-1]["done"]:
            break
    worker.close()
    return {"seen": seen, "records": [observation["record"] for observation in seen[1:]]}


def decide(job: dict[str, Any]) -> dict[str, Any]:
    """Judge a list of records."""
    task = {"id": job["task"]}
    outcome: dict[str, Any] = judge.judge(task, job["seed"], job["records"], job["config"])
    return outcome


def in_children(
    work: Callable[[dict[str, Any]], dict[str, Any]], jobs: Sequence[dict[str, Any]], parallel: int
) -> list[dict[str, Any]]:
    """Return the results of `work`, each done in a process of its own; an exception's is {"crash": text}."""
    with tempfile.TemporaryDirectory() as folder:
        running = 0
        for index, job in enumerate(jobs):
            if running >= parallel:
                os.wait()
                running -= 1
            if os.fork() == 0:
                _child(work, job, Path(folder) / f"{index}.json")
            running += 1
        for _ in range(running):
            os.wait()
        return [_result(Path(folder) / f"{index}.json") for index in range(len(jobs))]


def _child(work: Callable[[dict[str, Any]], dict[str, Any]], job: dict[str, Any], path: Path) -> None:
    try:
        result = work(job)
    except BaseException:  # the parent must hear of whatever ends the child
        result = {"crash": traceback.format_exc()}
    path.write_text(json.dumps(result), encoding="utf-8")
    os._exit(0)


def _result(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {"crash": "the process ended without a result"}
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


if __name__ == "__main__":
    main()
