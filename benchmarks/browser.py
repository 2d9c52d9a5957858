"""How long does a step in a web page take, and do we judge as BrowserGym does? Both in one run, side by side.

    python benchmarks/browser.py                              # our steps with 1, 2 and 4 contexts
    python benchmarks/browser.py --peer /tmp/browsergym       # and BrowserGym's, paired; installed there
    python benchmarks/browser.py --peer /tmp/browsergym --agree   # and the verdicts of both on ten pages

A step is an action and the observation that follows it. BrowserGym pins an old playwright, so that it gets a
virtual environment of its own; it drives the same browser as we do, with its own waits and without them.
"""

import argparse
import asyncio
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Any

from agentrl import Action, Task
from agentrl.expert import expert_of
from agentrl_browser import ProtocolError, View, find_executable, parse
from agentrl_miniwob import MiniWoB
from agentrl_miniwob.pages import folder

PEER = "browsergym-miniwob==0.14.3"
# Where its playwright, 1.44, looks for a browser.
REVISION = "chromium-1117"
SPEED_PAGE = "click-checkboxes-large"
AGREED = (
    "click-test",
    "click-test-2",
    "click-button",
    "click-button-sequence",
    "click-link",
    "click-option",
    "click-checkboxes",
    "choose-list",
    "enter-text",
    "login-user",
)
# Finds the element at a point again, in a page of which nothing else is known.
PATH = """(([x, y]) => {
  let path = "";
  for (let e = document.elementFromPoint(x, y); e; e = e.parentElement) {
    if (e.id) return "#" + e.id + path;
    const twins = [...e.parentElement.children].filter((other) => other.tagName === e.tagName);
    path = ` > ${e.localName}:nth-of-type(${twins.indexOf(e) + 1})${path}`;
  }
})(%s)"""


def task(page: str, seed: int) -> Task:
    return Task(f"{page}/{seed}", data={"page": page, "seed": seed})


def env_of(page: str) -> MiniWoB:
    return MiniWoB(MiniWoB.Config(pages=(page,)))


async def path_of(env: MiniWoB, bid: str) -> str:
    """Return a CSS path to an element."""
    found = await env.page.walk("act", "point", bid)
    if found["error"]:
        raise ProtocolError(found["error"])
    return str(await env.page.evaluate(PATH % json.dumps([found["x"], found["y"]])))


# Speed


async def our_steps(env: MiniWoB, steps: int) -> list[float]:
    seen = await env.reset(task(SPEED_PAGE, 0), 0)
    boxes = [each.bid for each in View.of(seen.text).all(role="checkbox")]
    seconds = []
    for step in range(steps):
        began = time.perf_counter()
        await env.step(Action(f"click({boxes[step % len(boxes)]!r})"))
        seconds.append(time.perf_counter() - began)
    return seconds


async def ours(contexts: int, steps: int) -> dict[str, Any]:
    """Return the times of steps in as many pages at once."""
    envs = [env_of(SPEED_PAGE) for _ in range(contexts)]
    try:
        await asyncio.gather(*(our_steps(env, 3) for env in envs))
        played = await asyncio.gather(*(our_steps(env, steps) for env in envs))
    finally:
        await asyncio.gather(*(env.close() for env in envs))
    seconds = [each for one in played for each in one]
    return {"median": statistics.median(seconds), "seconds": seconds}


async def box_paths() -> list[str]:
    env = env_of(SPEED_PAGE)
    try:
        seen = await env.reset(task(SPEED_PAGE, seed_of(0)), 0)
        return [await path_of(env, each.bid) for each in View.of(seen.text).all(role="checkbox")]
    finally:
        await env.close()


# BrowserGym


def seed_of(seed: int) -> int:
    """Return the seed that BrowserGym gives to a page, for one of its own."""
    from numpy.random import RandomState

    return int(RandomState(seed).randint(0, 1_000_000))


def python_of(place: Path) -> Path:
    """Return the python of BrowserGym's virtual environment, made where there is none."""
    python = place / "bin" / "python"
    if not python.exists():
        venv.create(place, with_pip=True)
    has = subprocess.run([python, "-c", "import browsergym.miniwob"], capture_output=True, check=False)
    if has.returncode:
        subprocess.run([python, "-m", "pip", "install", "-q", PEER], check=True)
    return python


def browsers_of(place: Path) -> Path:
    """Return a folder in which the pinned playwright finds the browser that we drive, too."""
    chrome = place / "browsers" / REVISION / "chrome-linux" / "chrome"
    chrome.parent.mkdir(parents=True, exist_ok=True)
    chrome.write_text(f'#!/bin/sh\nexec {shlex.quote(find_executable())} "$@"\n', encoding="utf-8")
    chrome.chmod(0o755)
    return place / "browsers"


def ask_peer(place: Path, **job: Any) -> Any:
    """Return what BrowserGym's side answers to a job."""
    python = python_of(place)
    pages = f"{(folder() / 'miniwob').as_uri()}/"
    done = subprocess.run(
        [python, Path(__file__).with_name("browsergym_peer.py")],
        input=json.dumps(job),
        env={**os.environ, "MINIWOB_URL": pages, "PLAYWRIGHT_BROWSERS_PATH": str(browsers_of(place))},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


# Agreement


async def told(page: str, seed: int, right: bool) -> tuple[list[Any], dict[str, Any]]:
    """Play an expert's actions, or click whatever comes last; return them and our verdict."""
    env = env_of(page)
    one = task(page, seed_of(seed))
    actions: list[Any] = []
    try:
        seen, expert = await env.reset(one, 0), expert_of(env, one)
        while not seen.done and len(actions) < 10:
            text = expert(seen) if right else f"click({View.of(seen.text).all()[-1].bid!r})"
            call = parse(text)
            target, *rest = call.arguments.values()
            actions.append([call.name, await path_of(env, View.of(seen.text).meant(target)), rest])
            seen = await env.step(Action(text))
        outcome = await env.judge()
        return actions, {"success": outcome.success, "goal": env.goal, **outcome.metrics}
    finally:
        await env.close()


def agrees(mine: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Return whether rewards and verdicts are the same; partial credit counts as success over there."""
    if mine["raw_reward"] != theirs["raw_reward"] or mine["goal"] != theirs["goal"]:
        return False
    return mine["success"] == theirs["success"] or 0 < mine["raw_reward"] < 1


async def agreement(place: Path, seeds: int) -> list[dict[str, Any]]:
    episodes, verdicts = [], []
    for page in AGREED:
        for seed in range(seeds):
            for right in (True, False):
                actions, verdict = await told(page, seed, right)
                episodes.append({"page": page, "seed": seed, "actions": actions})
                verdicts.append(verdict)
    answers = await asyncio.to_thread(ask_peer, place, kind="agree", episodes=episodes)
    return [
        {**episode, "ours": mine, "theirs": theirs, "agree": agrees(mine, theirs)}
        for episode, mine, theirs in zip(episodes, verdicts, answers, strict=True)
    ]


# The command


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=40, help="to time, in each context")
    parser.add_argument("--contexts", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument(
        "--peer", type=Path, help="folder of BrowserGym's virtual environment, made if missing"
    )
    parser.add_argument("--peer-steps", type=int, default=10, help="of BrowserGym to time")
    parser.add_argument("--agree", action="store_true", help="compare verdicts, too")
    parser.add_argument("--seeds", type=int, default=2, help="of each page whose verdicts are compared")
    parser.add_argument("--json", type=Path, help="file that gets all numbers")
    return parser.parse_args()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {
        f"{each} contexts": asyncio.run(ours(each, options.steps)) for each in options.contexts
    }
    if options.peer:
        job = {
            "kind": "speed",
            "page": SPEED_PAGE,
            "steps": options.peer_steps,
            "paths": asyncio.run(box_paths()),
        }
        found["BrowserGym"] = ask_peer(options.peer, quick=False, **job)
        found["BrowserGym without waits"] = ask_peer(options.peer, quick=True, **job)
        found["again 1 context"] = asyncio.run(ours(1, options.steps))
    return found


def main() -> None:
    options = arguments()
    found = measure(options)
    keep(found, options.json)
    alone = [found[name]["median"] for name in found if name in ("1 contexts", "again 1 context")]
    for name, each in found.items():
        ratio = f", {each['median'] / statistics.median(alone):7.1f} x one context" if alone else ""
        print(f"{name:26} {each['median'] * 1000:9.1f} ms a step{ratio}")
    if options.agree:
        if not options.peer:
            sys.exit("--agree compares with BrowserGym; name a folder for it with --peer")
        found["agreement"] = asyncio.run(agreement(options.peer, options.seeds))
        agreed = sum(each["agree"] for each in found["agreement"])
        partial = sum(0 < each["ours"]["raw_reward"] < 1 for each in found["agreement"])
        print(
            f"{agreed} of {len(found['agreement'])} goals, raw rewards and verdicts agree ({partial} partial)"
        )
        for each in found["agreement"]:
            if not each["agree"]:
                print(f"  {each['page']} seed {each['seed']}: ours {each['ours']}, theirs {each['theirs']}")
        keep(found, options.json)


def keep(found: dict[str, Any], path: Path | None) -> None:
    if path is not None:
        path.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
