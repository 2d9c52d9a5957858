"""`agentrl env play`: a person plays an episode, sees what an agent sees, and is judged as it is."""

import asyncio
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentrl.cli import arguments
from agentrl.cli.env import Name, prepare_environment
from agentrl.cli.errors import shown
from agentrl.cli.task_choice import choose_task
from agentrl.cli.typed import Typed
from agentrl.errors import UsageError

if TYPE_CHECKING:
    from agentrl.interfaces import Env, Expert
    from agentrl.types import Observation, Outcome, Task

HELP = (
    "A line is an action; \\ at its end, or ``` in it, begins a longer one. ? asks the expert; Ctrl-D ends."
)


def play(
    name: Name,
    task: Annotated[
        str | None,
        typer.Option("--task", help="The task's id, or its place in the split, from 0; by default: drawn."),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Split of the env; by default the one to train on.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the episode; draws the task if none is named.")] = 0,
    sets: arguments.Sets = None,
    setup: arguments.Setup = False,
    debug: arguments.Debug = False,
) -> None:
    """Play an episode yourself: see what an agent sees, type actions, be judged.

    A line is an action. One that ends with a backslash goes on in the next line; one that opens a block with
    ``` goes on until it is closed. `?` shows what the env's expert would say; Ctrl-D ends the episode.
    """
    from agentrl.display import PlainDisplay
    from agentrl.plugins import make

    display = PlainDisplay()
    with shown(display, debug=debug):
        name, options = _chosen(name, sets or [])
        prepare_environment(name, display, setup=setup)
        env = make("env", name, options)
        asyncio.run(_play(env, choose_task(env, split, task, seed), seed))


def _chosen(name: str, sets: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Return the env's name and what was set of its options.

    Raises:
        UsageError: something else was set.
    """
    from agentrl.settings import Layer, Settings, parse_sets

    tree = Settings.of([Layer.of("command line", {"env": name}), *parse_sets(sets)]).tree()
    options = tree.pop("env")
    if tree:
        raise UsageError(
            f"{next(iter(tree))!r} has no part in an episode that is played by hand: only options of the env "
            "can be set, such as --set env.KEY=VALUE"
        )
    return options.pop("name"), options


async def _play(env: "Env", task: "Task", seed: int) -> None:
    """Play an episode; whatever happens, close the env."""
    try:
        _begin(env, task, seed)
        outcome = await _episode(env, task, seed)
        for line in _verdict(outcome):
            _say(line)
        if explanation := env.explain(task):
            _say(f"\nwhat counts as success:\n{explanation}")
    finally:
        await env.close()


def _begin(env: "Env", task: "Task", seed: int) -> None:
    labels = "".join(f", {name} {value}" for name, value in task.labels.items())
    _say(f"task {task.id} of {task.split}, seed {seed}{labels}")
    if told := env.suggests.get("agent.system"):
        _say(f"\nAgents are told:\n{told}")
    _say(f"\n{HELP}\n")


async def _episode(env: "Env", task: "Task", seed: int) -> "Outcome":
    from agentrl.hosting.codec import check_observation, check_outcome
    from agentrl.types import Action

    hints, typed = _Hints(env, task), Typed(sys.stdin.fileno(), _prompt)
    observation = check_observation(await env.reset(task, seed), "reset")
    turn = 1
    while not observation.done:
        hints.see(observation)
        _say(observation.text)
        text = await _action(typed, hints, turn)
        if text is None:
            break
        observation = check_observation(await env.step(Action(text)), "step")
        turn += 1
    else:
        _say(observation.text)
    return check_outcome(await env.judge(), "judge")


async def _action(typed: Typed, hints: "_Hints", turn: int) -> str | None:
    """Return what the player does, None if the episode is to end; answer questions first."""
    while True:
        try:
            text = await typed.action(f"{turn}> ")
        except asyncio.CancelledError:
            _say("")  # what is said about Ctrl-C begins a line of its own
            raise
        if not sys.stdin.isatty():
            _say(text or "")  # so that what was done can be read
        if text is None or text.strip() not in ("", "?"):
            return text
        if text.strip():
            _say(hints.ask())


class _Hints:
    """What the env's expert would say: it is asked only when somebody wants to know."""

    def __init__(self, env: "Env", task: "Task") -> None:
        self._env = env
        self._task = task
        self._expert: Expert | None = None
        self._unseen: list[Observation] = []
        self._said = ""

    def see(self, observation: "Observation") -> None:
        """Keep an observation until the expert is asked: it has to see all of them."""
        self._unseen.append(observation)

    def ask(self) -> str:
        """Return a sentence with what the expert would say."""
        from agentrl.expert import Script, expert_of

        self._expert = self._expert or expert_of(self._env, self._task)
        if self._expert is None:
            return "the env has no expert for this task"
        # A script knows nothing of what others do.
        who = (
            "in this turn of its own the expert says"
            if isinstance(self._expert, Script)
            else "the expert says"
        )
        try:
            while self._unseen:
                text = self._expert(self._unseen.pop(0))
                self._said = "".join((who, ":\n" if "\n" in text else ": ", text))
        except Exception as error:  # an expert need not know what to do after what others did
            self._said = f"the expert does not know: {type(error).__name__}: {error}"
        return self._said


def _verdict(outcome: "Outcome") -> Iterator[str]:
    """Yield the lines of a verdict."""
    yield f"\n{'success' if outcome.success else 'failure'}"
    if outcome.answer is not None:
        yield f"answer: {outcome.answer}"
    for title in ("passed", "failed"):
        for check in getattr(outcome, title):
            yield f"{title}: {check}"
    for name, value in outcome.metrics.items():
        yield f"{name}: {value:g}"
    if outcome.tags:
        yield f"played under: {', '.join(outcome.tags)}"


def _say(text: str) -> None:
    typer.echo(text)


def _prompt(asked: str) -> None:
    if asked or sys.stdin.isatty():
        typer.echo(asked or "... ", nl=False)
