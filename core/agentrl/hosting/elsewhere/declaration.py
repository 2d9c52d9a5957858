"""What a plugin says about the other virtual environment that its world needs."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SetupStep:
    """Something to do once the requirements are installed: a run of the environment's python.

    Attributes:
        title: what it does, for example "unpack the apps".
        arguments: of python, such as `("-m", "appworld.cli", "install")`.

    In `arguments`, "{package}" stands for the folder of the plugin's code and "{files}" for the folder that
    the environment keeps beside its packages, which is also where the step runs. A step that was interrupted
    is run again, so it must not mind what it has left behind.
    """

    title: str
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Environment:
    """The virtual environment of a world, and how its worker is run.

    Attributes:
        worker: file beside the env's module that runs over there, such as "world.py".
        judge: file that judges over there, in processes apart; None if the world judges itself.
        requirements: what pip installs.
        steps: what is done once, after that.
        python: which versions of Python will do, for example ">=3.9,<3.12".
        variables: environment variables of steps and worker; "{package}" and "{files}" as in a `SetupStep`.
        memory_mb: address space of each process of an episode or judgement, MiB; None for no limit.
        episode_seconds: how long an episode may last, the model's thinking included; None for no limit.
        preload_seconds: how long the worker may take until it is ready for the first episode.
        episodes: side by side at most, unless `simulator.workers` says otherwise.
    """

    worker: str
    judge: str | None = None
    requirements: tuple[str, ...] = ()
    steps: tuple[SetupStep, ...] = ()
    python: str = ">=3.9"
    variables: Mapping[str, str] = field(default_factory=dict)
    memory_mb: int | None = None
    episode_seconds: float | None = None
    preload_seconds: float = 120.0
    episodes: int = 16
