"""Play or judge many episodes of which every word is known: the small world's self-check, and its tests.

    python -m trial play ROOT JOBS RESULTS [--parallel 2]     {"task", "seed", "said"} -> what was observed
    python -m trial judge ROOT JOBS RESULTS [--parallel 2]    {"task", "seed", "records"} -> an outcome

JOBS and RESULTS are JSON files with one list each. Every job has its own process, forked after the preload.
"""

import argparse
import json
import os
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
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="trial")
    parser.add_argument("what", choices=("play", "judge"))
    parser.add_argument("root", type=Path)
    parser.add_argument("jobs", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--parallel", type=int, default=2)
    arguments = parser.parse_args()
    jobs = json.loads(arguments.jobs.read_text(encoding="utf-8"))
    config = CONFIG | {name: str(arguments.root.absolute()) for name in ("play_root", "truth_root")}
    (worker if arguments.what == "play" else judge).preload(config)
    jobs = [{"config": config, **job} for job in jobs]
    results = in_children(play if arguments.what == "play" else decide, jobs, arguments.parallel)
    arguments.results.write_text(json.dumps(results), encoding="utf-8")


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
