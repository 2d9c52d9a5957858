"""Judge an episode: apart from where it was played, with the ground truth, from its API calls alone.

The calls are made again in a fresh world, and AppWorld's own evaluation looks at what they did. So a database
file or a patched function of the episode's process counts for nothing. Access tokens stay valid: they depend
on the account and the clock, and the clock stands still at the task's time.
"""

import json
import re
import shutil
import sys
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

MOST_CALLS = 20_000
LOCAL = re.compile(r"/([a-z_]+)(?:/[^?#\\]*)?")
COMPLETION = "/supervisor/message"
METHODS = ("get", "post", "put", "patch", "delete")


def preload(config: Mapping[str, Any]) -> None:
    """Import AppWorld with its apps and judge an idle episode, so that forked children are ready at once.

    `config["truth_root"]` is a folder with data/, ground truth included.
    """
    from hastening import prepare_shell  # type: ignore[import-not-found]
    from opening import open_root, rehearse  # type: ignore[import-not-found]

    task = open_root(config["truth_root"])
    rehearse(task)
    # A judge runs no code of an episode.
    prepare_shell(used=None)
    judge({"id": task}, 0, [], config)


def judge(
    task: Mapping[str, Any], seed: int, records: Sequence[Mapping[str, Any]], config: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the facts about an episode, from the records of its steps.

    `fraction` is of all checks, `asked_fraction` of those that an idle episode fails, `collateral_damage` the
    number of failed checks about what must not change. `refused_calls` are calls that no API could have got.

    Raises:
        RuntimeError: a call was answered otherwise than in the episode, or all of them together have not done
            to the databases what was done there, so that nobody knows what the episode led to.
    """
    from answers import changes, listen  # type: ignore[import-not-found]
    from appworld import AppWorld, evaluate_task  # type: ignore[import-not-found]
    from appworld.apps.model_lib import CachedDBHandler  # type: ignore[import-not-found]

    calls = [call for record in records for call in _calls(record)]
    name = f"judgement-{uuid.uuid4().hex}"
    world = AppWorld(task_id=task["id"], experiment_name=name, random_seed=seed, raise_on_failure=False)
    try:
        answers = listen(world.requester)
        refused = sum(not _repeat(world, call, answers) for call in calls[:MOST_CALLS])
        if records and records[-1].get("changes") != changes(world):
            raise RuntimeError(
                "made again, the episode's calls change other things than were changed in it, which has used "
                "other means as well: what the episode led to cannot be told from its calls"
            )
        completed = bool(world.task_completed())
        world.execute("pass")  # writes the databases to where the evaluation looks for them
        tracker = evaluate_task(task_id=task["id"], experiment_name=name, save_report=False)
    finally:
        world.close()
        AppWorld.close_all()
        CachedDBHandler.reset()
        _forget_logouts()
        shutil.rmtree(world.base_output_directory, ignore_errors=True)
    truth = world.task.ground_truth.answer
    facts = summarize(tracker.passes, tracker.failures, tracker.num_tests)
    facts["metrics"].update(behaviour(records, calls), completed=float(completed))
    facts["metrics"]["refused_calls"] = float(refused + max(0, len(calls) - MOST_CALLS))
    return {**facts, "answer": given_answer(calls), "references": [] if truth is None else [str(truth)]}


def _calls(record: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    """Return the calls of a step; the last one may have been `interrupted` by the end of its time."""
    calls = [call for call in record["calls"] if isinstance(call, dict)]
    if calls and record["error"] and calls[-1].get("answer") is None:
        calls[-1] = {**calls[-1], "interrupted": True}
    return calls


def summarize(
    passes: Sequence[Mapping[str, Any]], failures: Sequence[Mapping[str, Any]], number: int
) -> dict[str, Any]:
    """Return success, the names of checks, and the numbers that rewards are made of."""
    asked_passed = sum(check["label"] == "no_op_fail" for check in passes)
    asked = asked_passed + sum(check["label"] == "no_op_fail" for check in failures)
    # A missing answer fails a check that an idle but completed episode passes; it damages nothing.
    damage = [c for c in failures if c["label"] == "no_op_pass" and "answer" not in c["requirement"]]
    return {
        "success": len(passes) == number,
        "passed": [check["requirement"] for check in passes],
        "failed": [check["requirement"] for check in failures],
        "metrics": {
            "fraction": len(passes) / max(1, number),
            "asked_fraction": asked_passed / max(1, asked),
            "collateral_damage": float(len(damage)),
        },
    }


def behaviour(records: Sequence[Mapping[str, Any]], calls: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return what the literature looks at: failures of code, as the episode tells, and the order of calls."""
    apps = [str(call.get("url", "")).split("/")[1:2] for call in calls]
    working = [index for index, app in enumerate(apps) if app not in (["api_docs"], ["supervisor"])]
    turns = max(1, len(records))
    return {
        "api_calls": float(len(calls)),
        "code_errors": sum(bool(record["error"]) for record in records) / turns,
        "read_docs_first": float(bool(working) and ["api_docs"] in apps[: working[0]]),
    }


def given_answer(calls: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the answer that completed the task last, None where there was none."""
    for call in reversed(calls):
        data = call.get("data")
        if call.get("url") == COMPLETION and isinstance(data, Mapping):
            answer = data.get("answer")
            return answer if answer is None or isinstance(answer, str) else json.dumps(answer)
    return None


def _forget_logouts() -> None:
    """Forget which tokens were logged out: AppWorld's apps know it for as long as the process lives."""
    for name, module in list(sys.modules.items()):
        if name.startswith("appworld.apps.") and getattr(module, "logging_manager", None) is not None:
            module.logging_manager.blacklisted_tokens.clear()


def _repeat(world: Any, call: Mapping[str, Any], answers: Mapping[int, str]) -> bool:
    """Make a call again; return whether it was one that an episode can make.

    Raises:
        RuntimeError: it was answered otherwise than in the episode.
    """
    method, url, data = call.get("method"), call.get("url"), call.get("data")
    place = LOCAL.fullmatch(url) if isinstance(url, str) else None
    known = place is not None and place.group(1) in world.task.allowed_apps
    if method not in METHODS or not known or not isinstance(data, dict) or ".." in str(url):
        return False
    requester = world.requester
    requester.reset_request_count()
    # An API that raised has no answer, here as in the episode.
    with suppress(Exception):
        getattr(requester, method)(url, data=dict(data), client=requester.client, raise_on_failure=False)
    before, now = call.get("answer"), answers.get(len(requester.requests) - 1)
    # Nobody heard what an interrupted call was answered; if it changed something, the databases tell.
    if before != now and not call.get("interrupted"):
        raise RuntimeError(
            f"{method} {url} was answered with {now} when the judge made it again, and with {before} in the "
            "episode: what the episode led to cannot be told from its calls"
        )
    return True
