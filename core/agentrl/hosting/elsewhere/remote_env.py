"""Envs whose world lives in another virtual environment: what authors write, and the proxy that plays."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from agentrl.errors import AgentRLError, UsageError
from agentrl.hosting import codec
from agentrl.hosting.elsewhere import sandbox
from agentrl.hosting.elsewhere.court import Court
from agentrl.hosting.elsewhere.declaration import Environment, Sandbox
from agentrl.hosting.elsewhere.episode import EpisodeProcess
from agentrl.hosting.elsewhere.site import Site, site_of
from agentrl.hosting.elsewhere.zygote import Preload, Zygote
from agentrl.hosting.worker_env import WorkerEnv
from agentrl.interfaces import Env
from agentrl.types import Action, Observation, Outcome, Task

if TYPE_CHECKING:
    from agentrl.hosting.elsewhere.remote_pool import RemotePool

WORKER = Path(__file__).with_name("worker.py")


class RemoteEnv(Env):
    """An env whose world lives in another virtual environment.

    The class lives here: it lists tasks and has the `Config`. The world is the file `environment.worker`,
    which runs over there, imports no agentrl, and has these functions; values are JSON:

        def preload(config): ...  # optional: once, before episodes are forked from this process
        def reset(task, seed, config): ...  # an observation: its text, or {"text", "done", "state_key"}
        def step(action): ...  # the same; `action` is {"text", "key"}
        def judge(): ...  # {"success", ...}: the fields of `agentrl.Outcome`
        def close(): ...  # optional

    Each episode has a process of its own, so the world may be kept in the module's variables.

    Code that the model wrote may run in that process and claim anything. Where the truth must be out of its
    reach, name a second file as `environment.judge`, with `preload` as above and

        def judge(task, seed, records, config): ...

    `records` are what `reset` and each `step` returned as "record", beside the observation, in order; they
    are kept here, and what was said once cannot be taken back.
    """

    environment: ClassVar[Environment]
    checked_with: ClassVar[Mapping[str, Any]] = {"tasks": 2, "seconds": 120.0}
    _host: "RemoteEnv | None" = None
    _own: "RemotePool | None" = None
    # Who plays the episode, and who has lent it.
    _player: Env | None = None
    _lender: "RemotePool | None" = None

    @property
    def sandbox(self) -> Sandbox | None:
        """Return the walls around the world, None if there are none or the option `sandbox` says so."""
        return self.environment.sandbox if getattr(self.config, "sandbox", True) else None

    @property
    def site(self) -> Site:
        """Return where the environment is; its `files` is the folder that the set-up's steps fill."""
        return site_of(type(self))

    def worker_config(self) -> Mapping[str, Any]:
        """Return what the functions over there get as `config`, JSON-safe."""
        config: Mapping[str, Any] = self.config.model_dump(mode="json")
        return config

    def command(self, command: Sequence[str]) -> Sequence[str]:
        """Return what runs the worlds, given what would, its sandbox included; more may be put around it.

        It is spoken to over standard input, and with files that are sent along there.
        """
        return command

    def play_beside(self, host: "RemoteEnv") -> None:
        """Play in the workers of another env with the same options, which ends them when it is closed.

        Raises:
            UsageError: the other env is this one, of another class, or has other options.
        """
        if host is self or type(host) is not type(self) or host.config != self.config:
            raise UsageError(
                f"{type(self).__name__} can play beside another env of its class and options only"
            )
        self._host = host

    async def reset(self, task: Task, seed: int) -> Observation:
        """Begin an episode, in workers of this env's own unless it plays beside another one."""
        await self._end_episode()
        self._lender = self._workers()
        self._player = await self._lender.acquire()
        return await self._player.reset(task, seed)

    async def step(self, action: Action) -> Observation:
        """Apply `action` in the world."""
        return await self._playing().step(action)

    async def judge(self) -> Outcome:
        """Return what the world judges."""
        return await self._playing().judge()

    async def close(self) -> None:
        """End the episode, and the workers if they are this env's own. May be called twice."""
        own, self._own = self._own, None
        try:
            await self._end_episode()
        finally:
            if own is not None:
                await own.close()

    def _workers(self) -> "RemotePool":
        from agentrl.hosting.elsewhere.remote_pool import RemotePool

        if self._host is not None:
            return self._host._workers()
        if self._own is None:
            self._own = RemotePool(self)
        return self._own

    async def _end_episode(self) -> None:
        player, self._player = self._player, None
        if player is not None and self._lender is not None:
            await self._lender.release(player)

    def _playing(self) -> Env:
        if self._player is None:
            raise AgentRLError(f"{type(self).__name__} plays no episode: call reset first")
        return self._player


class EpisodeEnv(WorkerEnv):
    """An env that plays one episode in a process that a zygote forks for it when it is reset."""

    def __init__(
        self,
        name: str,
        config: Mapping[str, Any],
        zygote: Zygote,
        court: Court | None = None,
        close_seconds: float = 10.0,
    ) -> None:
        """Take what forks the episode's process; nothing is started yet.

        Args:
            name: of the env.
            config: what the functions over there get.
            zygote: forks the episode's process.
            court: judges, where the world does not judge itself.
            close_seconds: how long `close` may take.
        """
        super().__init__(name, config, close_seconds, EpisodeProcess(zygote))
        self._zygote = zygote
        self._court = court
        self._evidence: tuple[codec.Json, int] | None = None
        self._records: list[Any] = []

    async def start(self, seconds: float = 0.0) -> None:
        """Do nothing: `reset` starts the process."""

    async def reset(self, task: Task, seed: int) -> Observation:
        """Begin an episode in a process of its own.

        Raises:
            WorkerDied: the worker is dead, or the episode's process died.
            EnvRaised: the world's `reset` raised.
        """
        if self._process.pid is not None or self._process.alive:
            await self.close()
            self._process = EpisodeProcess(self._zygote)
        self._evidence, self._records = (codec.task_to_json(task), seed), []
        await self._process.start()
        reply = await self._ask("reset", {"task": codec.task_to_json(task), "seed": seed})
        return self._observation(reply, "reset")

    async def step(self, action: Action) -> Observation:
        """Apply `action` in the world."""
        return self._observation(await self._ask("step", {"action": codec.action_to_json(action)}), "step")

    async def judge(self) -> Outcome:
        """Return what the world judges; or the court, by what was put on record."""
        if self._court is None:
            return await super().judge()
        if self._evidence is None:
            raise AgentRLError(f"{self._title} was asked to judge before reset")
        return await self._court.judge(*self._evidence, self._records)

    def _observation(self, reply: object, operation: str) -> Observation:
        if isinstance(reply, dict) and "record" in reply:
            self._records.append(reply.pop("record"))
        return codec.observation_from_json(reply, self._origin(operation))


def preload_of(env: RemoteEnv, site: Site, file: str) -> Preload:
    """Return how to run the world or the judge of an env whose environment is set up."""
    environment = env.environment
    command = [str(site.python), "-u", str(WORKER)]
    world = str(site.package / file)
    playing = file == environment.worker
    walls = env.sandbox if playing else None
    if walls is not None:
        command = sandbox.walled(command, site, walls, [WORKER, sandbox.ENCLOSURE, Path(world)])
    variables = site.variables() if walls is None else sandbox.variables_of(site)
    return Preload(
        title=f"env {site.name!r}",
        command=env.command(command) if playing else command,
        # The same episode in every worker, also where a world walks over a set; one thread for each of many;
        # nothing is written to where modules lie, which may be the user's folder of data.
        variables={
            "PYTHONHASHSEED": "0",
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            **variables,
        },
        folder=site.files,
        order={
            "worker": world,
            "config": dict(env.worker_config()),
            "memory_mb": environment.memory_mb,
            "episode_seconds": environment.episode_seconds,
            "enclosure": None if walls is None else sandbox.rule_of(walls, site),
        },
        most_bytes=environment.said_mb << 20,
        seconds=environment.preload_seconds,
    )
