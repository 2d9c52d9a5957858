"""What a plugin says about the other virtual environment that its world needs."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SetupStep:
    """Something to do once the requirements are installed: a run of the environment's python.

    Attributes:
        title: what it does, for example "unpack the apps".
        arguments: of python, such as `("-m", "appworld.cli", "install")`.
        sources: files and folders below the plugin's code that the result depends on, besides those that
            `arguments` name; when they change, a new environment is made.
        option: with which the user asks for the step, such as "--data"; None if it is always done.
        value: what the option takes, such as "FILE"; None if it takes nothing.
        help: what the option is good for.

    In `arguments`, "{package}" stands for the folder of the plugin's code, "{files}" for the folder that the
    environment keeps beside its packages, which is also where the step runs, and "{value}" for what the
    option was given. A step that was interrupted is run again, and so is one that is asked for again: it must
    not mind what it has left behind. If a step with an option fails, the env can still be played.
    """

    title: str
    arguments: tuple[str, ...]
    sources: tuple[str, ...] = ()
    option: str | None = None
    value: str | None = None
    help: str = ""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Walls around a world in whose process code runs that a model wrote; the judge stays outside.

    Every episode sees no processes, network and environment variables but its own, and of the files only the
    system's programs and libraries, the virtual environment, the file of the world, and what stands here.

    Attributes:
        readable: further folders and files; "{package}" and "{files}" as in a `SetupStep`. What is not there
            is left out.
        writable: folders that the world writes to. Each episode finds them empty, and what it leaves there
            goes with it; so it does in the home folder and in that for temporary files, which it always has.
        hidden: folders that are empty for every episode, even where they lie in a folder that it sees.
        disk_mb: what fits into each of these folders, MiB of memory.
        programs: whether an episode may start programs; if not, it can only make threads.
    """

    readable: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    disk_mb: int = 64
    programs: bool = False


@dataclass(frozen=True, slots=True)
class Environment:
    """The virtual environment of a world, and how its worker is run.

    Attributes:
        worker: file beside the env's module that runs over there, such as "world.py".
        judge: file that judges over there, in processes apart; None if the world judges itself.
        judgements: that one of these processes makes, one after the other, before another is forked. More
            than one saves what a fork costs, if the judge leaves nothing behind.
        requirements: what pip installs.
        steps: what is done once, after that.
        python: which versions of Python will do, for example ">=3.9,<3.12".
        variables: environment variables of steps and worker; "{package}" and "{files}" as in a `SetupStep`.
        memory_mb: address space of each process of an episode or judgement, MiB; None for no limit.
        episode_seconds: how long an episode may last, the model's thinking included; None for no limit.
        preload_seconds: how long the worker may take until it is ready for the first episode.
        said_mb: JSON that an episode may send here, all in all, MiB.
        sandbox: walls around the world, None for none. The option `sandbox` of the env's `Config`, if it has
            one, says whether they are put up.
        episodes: side by side at most, unless `simulator.workers` says otherwise.
    """

    worker: str
    judge: str | None = None
    judgements: int = 1
    requirements: tuple[str, ...] = ()
    steps: tuple[SetupStep, ...] = ()
    python: str = ">=3.9"
    variables: Mapping[str, str] = field(default_factory=dict)
    memory_mb: int | None = None
    episode_seconds: float | None = None
    preload_seconds: float = 120.0
    said_mb: int = 32
    sandbox: Sandbox | None = None
    episodes: int = 16
