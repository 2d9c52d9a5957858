"""Judges stored trajectories anew, with other rewards and without playing them: `agentrl rescore`.

The scores go to RUN/rescored/NAME/: a file of JSON lines for each file of trajectories, one a trajectory, and
`rescored.json`, which says by which rewards and of which files. What was stored is never written to. A file
whose scores are there, of the very same trajectories, is not judged again: what was interrupted goes on.
"""

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from agentrl.errors import UsageError
from agentrl.files import encode, read_lines, to_json, write_bytes, write_json
from agentrl.interfaces import Reward
from agentrl.judging import Judge, WeightedReward
from agentrl.records import load_groups
from agentrl.together import all_of
from agentrl.types import Group, Trajectory

Row = dict[str, Any]
_INDEX = "rescored.json"


@dataclass(frozen=True, slots=True)
class Source:
    """A file of trajectories; `name` says of what, such as `step-000010`."""

    path: Path

    @property
    def name(self) -> str:
        """Return what the trajectories are of."""
        return self.path.name.removesuffix(".jsonl.gz")

    @property
    def held_out(self) -> bool:
        """Return whether they were played for an evaluation rather than for an update."""
        return self.name.startswith("eval-")


def find_sources(folder: Path) -> list[Source]:
    """Return the files of trajectories of the run in `folder`, in order.

    Raises:
        UsageError: there is no run, or it has stored no trajectories.
    """
    if not (folder / "run.yaml").is_file():
        raise UsageError(f"there is no run in {folder}: it has no run.yaml")
    found = sorted((folder / "trajectories").glob("*.jsonl.gz"))
    if not found:
        raise UsageError(f"the run in {folder} has stored no trajectories: it has not finished an update yet")
    return [Source(path) for path in found]


def place_of(folder: Path, rewards: Sequence[WeightedReward]) -> Path:
    """Return where the scores of these rewards go; other weights, options or code go elsewhere."""
    said = describe(rewards)
    digest = sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:8]
    return folder / "rescored" / f"{'+'.join(each.name for each in rewards)[:80]}-{digest}"


def describe(rewards: Sequence[WeightedReward]) -> dict[str, Any]:
    """Return weight, options and the hash of the code of each reward, JSON-safe."""
    return {
        each.name: {
            "weight": each.weight,
            "options": each.reward.config.model_dump(mode="json"),
            "code": _hash_of_code(each.reward),
        }
        for each in rewards
    }


def _hash_of_code(reward: Reward) -> str:
    """Return the hash of the Python files of the reward's package: who edits a reward wants new scores."""
    file = Path(inspect.getfile(type(reward)))
    alone = not (file.parent / "__init__.py").is_file()
    files = [file] if alone else sorted(file.parent.rglob("*.py"))
    return sha256(b"".join(each.read_bytes() for each in files)).hexdigest()


async def rescore(
    sources: Sequence[Source],
    rewards: Sequence[WeightedReward],
    place: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, list[Row]]:
    """Return the lines of each source, judging those whose scores are not in `place` yet.

    Args:
        sources: what to judge.
        rewards: by which; started.
        place: the folder of their scores (see `place_of`).
        progress: told how many of how many trajectories of a source are judged.

    Raises:
        AgentRLError: a reward raised, it needs what trajectories lack, or a file cannot be read or written.
    """
    done = _done(place)
    found = {}
    for source in sources:
        path = place / f"{source.name}.jsonl"
        digest = sha256(source.path.read_bytes()).hexdigest()
        if done.get(source.name) != digest:
            rows = await _judge(source, rewards, progress)
            write_bytes(path, encode("".join(to_json(row) + "\n" for row in rows)), "the scores")
            # What could not be judged is tried again next time.
            done[source.name] = "" if any("unjudged" in row for row in rows) else digest
            write_json(place / _INDEX, {"rewards": describe(rewards), "sha256": done}, "the scores")
        found[source.name] = read_lines(path)
    return found


def _done(place: Path) -> dict[str, str]:
    """Return the digest of each file of trajectories whose scores are complete."""
    path = place / _INDEX
    done: dict[str, str] = json.loads(path.read_text())["sha256"] if path.is_file() else {}
    return {name: digest for name, digest in done.items() if (place / f"{name}.jsonl").is_file()}


async def _judge(
    source: Source, rewards: Sequence[WeightedReward], progress: Callable[[int, int], None]
) -> list[Row]:
    groups = load_groups(source.path)
    _check_needs(groups, rewards, source)
    trajectories = [(number, each) for number, group in enumerate(groups) for each in group.trajectories]
    judge, done = Judge(rewards), 0

    async def judge_one(group: int, trajectory: Trajectory) -> Row:
        nonlocal done
        row = _before(group, trajectory)
        if trajectory.played:
            trajectory.rewards, trajectory.reward, trajectory.error = {}, 0.0, None
            await judge(trajectory)
            row |= _after(trajectory, rewards)
        done += 1
        progress(done, len(trajectories))
        return row

    return await all_of(judge_one(*each) for each in trajectories)


def _check_needs(groups: Sequence[Group], rewards: Sequence[WeightedReward], source: Source) -> None:
    """Refuse to compare answers where there is nothing to compare them with.

    Raises:
        UsageError: it names the reward.
    """
    outcomes = [t.outcome for group in groups for t in group.trajectories if t.played and t.outcome]
    if not outcomes or any(outcome.references for outcome in outcomes):
        return
    for each in rewards:
        if each.reward.needs_references:
            raise UsageError(
                f"the reward {each.name!r} compares answers with right ones, and the env has given none with "
                f"the trajectories in {source.path}; choose another reward, such as success or checks"
            )


def _before(group: int, trajectory: Trajectory) -> Row:
    """Return what was stored."""
    return {
        "group": group,
        "task": trajectory.task.id,
        "seed": trajectory.seed,
        "failed": not trajectory.played,
        "success": float(trajectory.outcome is not None and trajectory.outcome.success),
        "old": {"reward": trajectory.reward, **trajectory.rewards},
        "new": None,
    }


def _after(trajectory: Trajectory, rewards: Sequence[WeightedReward]) -> Row:
    """Return how it was judged; `unjudged` says what is missing, `new` stays None if that is in the sum."""
    if trajectory.failed:
        return {"unjudged": trajectory.error}
    missing = [each.name for each in rewards if each.name not in trajectory.rewards]
    more = {"unjudged": f"no score of {', '.join(missing)}"} if missing else {}
    return {"new": {"reward": trajectory.reward, **trajectory.rewards}, **more}
