"""One episode in AppWorld: runs in AppWorld's interpreter, in a process of its own, without ground truth.

`preload` once, then in a forked child `reset`, `step` until done, and `close`; see `agentrl.RemoteEnv` for
who calls. While an episode is open the clock of its process stands still: time limits are the parent's
business, and so are memory and network. The `record` of a step has its API calls; it is kept by the parent
and is all that the judge is told, so code that tampers with this process can claim nothing but calls that it
might have made.
"""

import ast
import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, time, timedelta
from types import ModuleType
from typing import Any

FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
NO_CODE = "No code found. Write one block of code that begins with ```python and ends with ```."
# What AppWorld answers begins with this where code raised, timed out or was refused.
FAILED = "Execution failed."
# Who plays the episode says how many turns it has.
NO_LIMIT = 1_000_000


@dataclass
class Episode:
    """What is open in this process."""

    world: Any
    config: Mapping[str, Any]
    names: frozenset[str]
    answers: Mapping[int, str]
    calls_seen: int = 0
    errors: int = 0
    done: bool = False


_open: list[Episode] = []


def preload(config: Mapping[str, Any]) -> None:
    """Import AppWorld with its apps and play, so that forked children are ready at once.

    `config["play_root"]` is a folder with data/ but no ground truth; episodes make their folders in it.
    """
    from hastening import prepare_shell  # type: ignore[import-not-found]
    from opening import open_root, rehearse  # type: ignore[import-not-found]

    task = open_root(config["play_root"])
    rehearse(task)
    reset({"id": task}, 0, config)
    step({"text": "```python\nprint(apis.supervisor.show_profile())\n```"})
    close()
    prepare_shell()


def reset(task: Mapping[str, Any], seed: int, config: Mapping[str, Any]) -> dict[str, Any]:
    """Open a world and return who asks for what.

    Args:
        task: its "id" names a folder of data/tasks.
        seed: of chance in the apps and in the episode's code.
        config: "characters" of an observation, "seconds" and API "calls" of a turn, "errors" in a row that
            end the episode, None for none.
    """
    from answers import changes, listen  # type: ignore[import-not-found]
    from appworld import AppWorld  # type: ignore[import-not-found]

    close()
    world = AppWorld(
        task_id=task["id"],
        # Two worlds of one name would share a folder, and be judged by each other's deeds.
        experiment_name=f"episode-{uuid.uuid4().hex}",
        load_ground_truth=False,
        random_seed=seed,
        timeout_seconds=config["seconds"],
        max_interactions=NO_LIMIT,
        max_api_calls_per_interaction=config["calls"],
    )
    episode = Episode(world, config, frozenset(world.shell.user_ns), listen(world.requester))
    _open.append(episode)
    me = world.task.supervisor
    asker = f"I am {me['first_name']} {me['last_name']}, {me['email']}, {me['phone_number']}."
    return {
        "text": f"{asker}\n{world.task.instruction}",
        "done": False,
        "state_key": _state_key(episode, changes(world)),
    }


def step(action: Mapping[str, Any]) -> dict[str, Any]:
    """Run the first block of code in what the agent said, and return what it printed, within the limit.

    The record has the API `calls` in order, each with its `answer` in short, what all calls of the episode
    have done to the databases as `changes`, whether the action failed as `error`, and whether the task is
    `completed`. The `state_key` is None where variables hold what cannot be compared.

    Raises:
        RuntimeError: the episode is over.
    """
    from answers import changes

    episode = _open[-1]
    if episode.done:
        raise RuntimeError("the episode is over; reset first")
    found = FENCE.search(action["text"])
    code = found.group(1) if found else ""
    output = _execute(episode.world, code)
    calls = _new_calls(episode)
    completed = _completed(episode.world)
    error = output is NO_CODE or output.startswith(FAILED)
    episode.errors = episode.errors + 1 if error else 0
    episode.done = completed or episode.errors == episode.config["errors"]
    changed = changes(episode.world)
    return {
        "text": f"Output:\n```\n{cut(output.rstrip(), episode.config['characters'])}\n```",
        "done": episode.done,
        "state_key": _state_key(episode, changed),
        "action_key": action_key(code, calls),
        "record": {"calls": calls, "changes": changed, "error": error, "completed": completed},
    }


def close() -> None:
    """Close the world, if one is open, and remove its folder."""
    while _open:
        world = _open.pop().world
        try:
            world.close()
        finally:
            shutil.rmtree(world.base_output_directory, ignore_errors=True)


def cut(text: str, characters: int) -> str:
    """Return `text` shortened in its middle, with a note of how much is missing."""
    if len(text) <= characters:
        return text
    note = f"\n[... {len(text) - characters:,} of {len(text):,} characters were cut here ...]\n"
    half = characters // 2
    return text[: characters - half] + note + text[len(text) - half :]


def action_key(code: str, calls: list[dict[str, Any]]) -> str:
    """Return what identifies an action: its API calls in order, or its code where it made none."""
    canonical = [[call["method"], call["url"], _without_token(call["data"])] for call in calls]
    return _hash(json.dumps(canonical, sort_keys=True) if calls else _tidy(code))


def _without_token(data: Any) -> Any:
    return {k: v for k, v in data.items() if k != "access_token"} if isinstance(data, dict) else data


def _tidy(code: str) -> str:
    try:
        return ast.unparse(ast.parse(code))
    except (SyntaxError, ValueError):
        return code.strip()


def _new_calls(episode: Episode) -> list[dict[str, Any]]:
    """Return the API calls since the last look, JSON-safe."""
    tracked = episode.world.requester.request_tracker.requests
    calls = [_sendable(call) for call in tracked[episode.calls_seen :]]
    # AppWorld writes all calls down after each step, and cannot if there is one that is no JSON.
    tracked[episode.calls_seen :] = calls
    numbered = enumerate(calls, start=episode.calls_seen)
    episode.calls_seen = len(tracked)
    return [{**call, "answer": episode.answers.get(number)} for number, call in numbered]


def _execute(world: Any, code: str) -> str:
    if not code.strip():
        return NO_CODE
    try:
        output: str = world.execute(code)
    except Exception as error:  # AppWorld stumbles over some output, such as half a pair of surrogates
        return f"{FAILED} {type(error).__name__}"
    return output.encode("utf-8", "replace").decode()


def _completed(world: Any) -> bool:
    try:
        return bool(world.task_completed())
    except Exception:  # the episode's code can break anything in its own process
        return False


def _sendable(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call as JSON has it; without its data if they are none, so that no API can have got it."""
    from fastapi.encoders import jsonable_encoder  # type: ignore[import-not-found]

    told = {"method": str(call["method"]), "url": str(call["url"])}
    try:
        data = jsonable_encoder(call["data"])
        json.dumps(data, allow_nan=False)
    except Exception:  # whatever an object that the episode's code passed on raises
        data = None
    return {**told, "data": data}


def _state_key(episode: Episode, changed: str) -> str | None:
    """Hash what decides the future: what databases `changed` by, and the variables of its code."""
    variables = {
        name: value
        for name, value in episode.world.shell.user_ns.items()
        if name not in episode.names and not name.startswith("_")
    }
    try:
        return _hash(json.dumps([episode.done, changed, variables], sort_keys=True, default=_plain))
    except (TypeError, ValueError, RecursionError):
        return None


def _plain(value: object) -> list[str]:
    """Return what JSON can hold of a value that it does not know.

    Raises:
        TypeError: what it is cannot be told, as of a function or an open file.
    """
    if isinstance(value, (set, frozenset)):
        return ["set", *sorted(map(repr, value))]
    if isinstance(value, (bytes, complex, range, date, time, timedelta)):
        return [type(value).__name__, repr(value)]
    if isinstance(value, ModuleType):
        return ["module", value.__name__]
    raise TypeError(type(value).__name__)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
