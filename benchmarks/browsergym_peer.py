"""BrowserGym's side of `browser.py`, run by the python of its own virtual environment; imports no agentrl.

Takes a job as JSON on stdin, and answers with JSON on stdout.
"""

import contextlib
import json
import statistics
import sys
import time

import browsergym.miniwob  # noqa: F401 - makes the envs known
import gymnasium


def make(page: str, quick: bool):
    """Return the env of a page; `quick` takes out the waits that are options."""
    options = {"pre_observation_delay": 0.0, "slow_mo": 0} if quick else {}
    # Its 5 s are too few for a busy machine.
    return gymnasium.make(f"browsergym/miniwob.{page}", timeout=120_000, **options)


def bid_of(env, path: str) -> str:
    """Return the number that BrowserGym has given to the element at a CSS path."""
    return env.unwrapped.page.evaluate("(path) => document.querySelector(path).getAttribute('bid')", path)


def speed(job: dict) -> dict:
    """Return the time of each step: clicks on boxes that can be ticked and unticked for ever."""
    env = make(job["page"], job["quick"])
    seconds = []
    try:
        env.reset(seed=0)
        for step in range(job["steps"]):
            bid = bid_of(env, job["paths"][step % len(job["paths"])])
            began = time.perf_counter()
            env.step(f"click({bid!r})")
            seconds.append(time.perf_counter() - began)
    finally:
        env.close()
    return {"seconds": seconds, "median": statistics.median(seconds)}


def agree(job: dict) -> list:
    """Return for each episode whether it was a success, with the raw reward and the goal."""
    return [episode(each) for each in job["episodes"]]


def episode(asked: dict) -> dict:
    """Play one episode."""
    env = make(asked["page"], quick=True)
    reward, info = 0.0, {}
    try:
        seen, _ = env.reset(seed=asked["seed"])
        for name, path, rest in asked["actions"]:
            arguments = ", ".join(repr(each) for each in [bid_of(env, path), *rest])
            _, reward, over, _, info = env.step(f"{name}({arguments})")
            if over:
                break
        raw = info.get("task_info", {}).get("RAW_REWARD_GLOBAL", 0.0)
    finally:
        env.close()
    return {"success": reward > 0, "raw_reward": raw, "goal": seen["goal"]}


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        answer = {"speed": speed, "agree": agree}[asked["kind"]](asked)
    json.dump(answer, sys.stdout)
