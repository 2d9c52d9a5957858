"""Tries out before the first update whether the longest episodes fit, and says how much more would.

The engine makes room for all episodes that are played side by side, and reads one; the trainer computes an
update of them without moving anything. So a run that would break after hours breaks at once, and one that
does not goes on to the same numbers as without.
"""

from agentrl.assembly import Stage
from agentrl.config import RunConfig
from agentrl.errors import OutOfMemory
from agentrl.footprint import Rehearsal
from agentrl.hardware import GIB
from agentrl.interfaces import Algorithm, Trainer
from agentrl.placement import longest_episode, workload

# Suggested budgets are multiples of this.
_ROUND = 1024


def wanted(config: RunConfig) -> bool:
    """Return whether a run begins with a probe: where nobody says, if there is a GPU."""
    return config.device != "cpu" if config.probe is None else config.probe


async def probe(parts: Stage, trainer: Trainer, algorithm: Algorithm) -> None:
    """Try out the longest episodes, and say what they took.

    Raises:
        OutOfMemory: they do not fit; it says what helps.
    """
    config, engine = parts.config, parts.engine
    tokens = min(engine.context_length, longest_episode(config))
    episodes = workload(config).episodes
    parts.display.phase("probe", f"memory for episodes of {tokens:,} tokens, {episodes:,} side by side")
    try:
        found = await _try_out(parts, trainer, algorithm, tokens, episodes)
    except OutOfMemory as error:
        raise OutOfMemory(
            f"{error}; tried were episodes of {tokens:,} tokens: if they never get that long, episode_tokens "
            "says so, and probe=false tries nothing"
        ) from error
    parts.display.note(sentence(found) if found else _untried(config))


async def _try_out(
    parts: Stage, trainer: Trainer, algorithm: Algorithm, tokens: int, episodes: int
) -> Rehearsal | None:
    config, engine = parts.config, parts.engine
    await engine.try_room(tokens, episodes)
    if not config.staleness:
        await engine.sleep()
    found = trainer.rehearse(tokens, config.group_size, algorithm)
    if not config.staleness:
        await engine.wake()
    return found


def sentence(found: Rehearsal) -> str:
    """Return what a rehearsal took, and what budget of tokens would fit."""
    of = f" of {found.room / GIB:.1f}" if found.room else ""
    said = (
        f"memory: an update of {found.tokens:,} tokens at once took up to {found.peak / GIB:.2f}{of} GiB on "
        f"{found.device}, {(found.peak - found.before) / GIB:.2f} of them for that alone"
    )
    budget = found.budget()
    if budget is None:
        return said
    rounded = max(budget // _ROUND, 1) * _ROUND
    return f"{said}; trainer.micro_batch_tokens={rounded} would fit, by that"


def _untried(config: RunConfig) -> str:
    return (
        f"memory: room for the longest episodes was found by the engine; the trainer {config.trainer.name!r} "
        "cannot try an update out"
    )
