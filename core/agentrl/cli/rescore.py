"""`agentrl rescore`: judge what a run has stored by other rewards, without playing it again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentrl.cli import arguments
from agentrl.cli.errors import shown
from agentrl.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from agentrl.display import Display
    from agentrl.judging import WeightedReward
    from agentrl.rescoring import Row, Source


def rescore(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", help="Run whose stored trajectories are judged.")
    ],
    rewards: Annotated[
        list[str] | None,
        typer.Option(
            "--reward", metavar="NAME[:WEIGHT]", help="Reward; by default those of the run; repeatable."
        ),
    ] = None,
    files: Annotated[
        str, typer.Option("--files", help="Which files of trajectories, such as 'eval-*'; by default all.")
    ] = "*",
    sets: arguments.Sets = None,
    debug: arguments.Debug = False,
) -> None:
    """Judge the stored trajectories of a run anew, and compare old scores with new ones."""
    from agentrl.display import make_display, wide_console

    display = make_display()
    with shown(display, debug=debug):
        sources = _sources(folder, files)
        weighted = _rewards(folder, rewards, sets or [])
        place, scores = _rescore(folder, sources, weighted, display)
    _show(wide_console(), sources, scores)
    typer.echo(f"scores: {place}")


def _sources(folder: Path, pattern: str) -> "list[Source]":
    """Return the files that are meant.

    Raises:
        UsageError: there is none.
    """
    from fnmatch import fnmatch

    from agentrl.rescoring import find_sources

    every = find_sources(folder)
    found = [source for source in every if fnmatch(source.name, pattern)]
    if not found:
        raise UsageError(
            f"no file of trajectories is called {pattern!r}; there are {every[0].name} to {every[-1].name}"
        )
    return found


def _rewards(folder: Path, texts: list[str] | None, sets: list[str]) -> "list[WeightedReward]":
    """Return the rewards that are named, or those of the run, with their options.

    Raises:
        UsageError: there is no such reward, or something else was set.
    """
    from pydantic import TypeAdapter, ValidationError

    from agentrl import plugins
    from agentrl.config import WeightedChoice, load_run_file
    from agentrl.judging import WeightedReward
    from agentrl.options import suggestion
    from agentrl.settings import Layer, Settings, parse_sets

    said: Any = arguments.parse_rewards(texts or ()) or load_run_file(folder / "run.yaml").get("rewards")
    if not said:
        raise UsageError("say by which rewards to judge, such as --reward success")
    tree = Settings.of([Layer.of("command line", {"rewards": said}), *parse_sets(sets)]).tree()
    chosen = tree.pop("rewards", {})
    for key in (*tree, *(f"rewards.{name}" for name in chosen if name not in said)):
        hint = suggestion(key.removeprefix("rewards."), said, what="there are")
        raise UsageError(f"--set is for options of the rewards here, not for {key!r}; {hint}")
    try:
        choices = TypeAdapter(dict[str, WeightedChoice]).validate_python(chosen)
    except ValidationError as error:
        raise UsageError(f"the rewards cannot be read: {error.errors()[0]['msg']}") from error
    return [
        WeightedReward(name, plugins.make("reward", name, choice.options), choice.weight)
        for name, choice in choices.items()
    ]


def _rescore(
    folder: Path, sources: "list[Source]", rewards: "list[WeightedReward]", display: "Display"
) -> "tuple[Path, dict[str, list[Row]]]":
    import asyncio

    from agentrl.judging import started
    from agentrl.rescoring import place_of, rescore

    place = place_of(folder, rewards)
    display.phase("judge", f"{len(sources)} files of trajectories")

    async def run() -> "dict[str, list[Row]]":
        async with started(rewards, place):
            return await rescore(sources, rewards, place, display.episodes)

    return place, asyncio.run(run())


def _show(console: "Console", sources: "list[Source]", scores: "dict[str, list[Row]]") -> None:
    """Print a table for what was played in training, and one for what was measured on."""
    from agentrl.comparison import compare, share_that_differ
    from agentrl.tables import comparison_table

    for held_out, title in ((False, "training"), (True, "held-out tasks")):
        rows = [
            {"file": source.name, **row}
            for source in sources
            if source.held_out is held_out
            for row in scores[source.name]
        ]
        if not rows:
            continue
        console.print(_title(title, rows))
        console.print(comparison_table(compare(rows)))
        old, new = (share_that_differ(rows, side) for side in ("old", "new"))
        if not held_out and old is not None and new is not None:
            console.print(f"groups whose rewards differ, so that they teach: {old:.3f} before, {new:.3f} now")


def _title(title: str, rows: "list[Row]") -> str:
    failed, unjudged = sum(row["failed"] for row in rows), sum("unjudged" in row for row in rows)
    left_out = f", {failed} of them failed and left out" if failed else ""
    left_out += f", {unjudged} that could not be judged and will be tried again" if unjudged else ""
    return f"{title}: {len(rows)} trajectories{left_out}"
