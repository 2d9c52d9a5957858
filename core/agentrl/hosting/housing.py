"""Which envs are to be played in workers, and how many: said here, done wherever the workers live."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentrl.hosting.elsewhere import RemoteEnv, RemotePool
from agentrl.hosting.pool import EnvPool, WorkerPool
from agentrl.plugins import make


@dataclass(frozen=True, slots=True)
class Housing:
    """Envs to be hosted; all of it can cross to another machine.

    Attributes:
        env: name of the env's entry point.
        options: of its `Config`, JSON-safe.
        workers: side by side.
    """

    env: str
    options: Mapping[str, Any]
    workers: int

    def open(self) -> EnvPool:
        """Return the pool of envs on this machine; nothing is started yet.

        Raises:
            PluginError: there is no such env.
            UsageError: its virtual environment is not set up here.
        """
        env = make("env", self.env, self.options)
        if isinstance(env, RemoteEnv):
            return RemotePool(env, self.workers, self.env)
        return WorkerPool(self.env, self.options, self.workers)
