"""Makes the parts of a run from its configuration: plugins by name, who gets what, what fits together."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from agentrl import plugins
from agentrl.config import RunConfig
from agentrl.display import Display
from agentrl.errors import UsageError
from agentrl.hooks import Hooks
from agentrl.hosting.elsewhere import RemoteEnv, RemotePool
from agentrl.hosting.housing import Housing
from agentrl.hosting.pool import EnvPool, InProcessPool
from agentrl.interfaces import Agent, Algorithm, Crew, Engine, Env, Resources, Trainer
from agentrl.judging import WeightedReward, started
from agentrl.machine import cores
from agentrl.runtime import Plan, Runtime
from agentrl.simulator import Simulator
from agentrl.types import Need


def resources(config: RunConfig, runtime: Runtime | None = None) -> Resources:
    """Decide who gets how many threads: env workers first, torch the rest, together one per core."""
    threads = config.threads or max(1, cores() - config.simulator.workers)
    if config.staleness:
        threads = max(1, threads // 2)
    return Resources(threads=threads, device=config.device, seed=config.seed, runtime=runtime)


def model_path(config: RunConfig) -> Path | str:
    """Return where the model is: a plugin's folder, a folder, or a hub name; `resolve` has checked which."""
    name = config.model.name
    if name in plugins.names("model"):
        return plugins.make("model", name, config.model.options).path()
    return Path(name) if Path(name).is_dir() else name


def env_pool(config: RunConfig, env: Env, runtime: Runtime) -> EnvPool:
    """Return the pool of envs that episodes lease from; `env` itself only lists tasks."""
    simulator = config.simulator
    if simulator.workers:
        return runtime.pool(Housing(config.env.name, config.env.options, simulator.workers))
    if isinstance(env, RemoteEnv):
        most = min(simulator.concurrency, env.environment.episodes)
        return RemotePool(env, most, config.env.name)
    return InProcessPool(lambda: type(env)(env.config), simulator.concurrency)


def weighted_rewards(config: RunConfig) -> list[WeightedReward]:
    """Return the configured rewards."""
    return [
        WeightedReward(name, plugins.make("reward", name, choice.options), choice.weight)
        for name, choice in config.rewards.items()
    ]


def check_needs(algorithm: Algorithm, trainer: Trainer, env: type[Env], config: RunConfig) -> frozenset[Need]:
    """Return what the algorithm needs, or refuse the run.

    Raises:
        UsageError: a need is not met, or a part has options that nothing needs; it says which and by whom.
    """
    name, needs = config.algorithm.name, algorithm.needs
    if "demonstrations" in needs:
        raise UsageError(
            f"the algorithm {name!r} learns from demonstrations, not from what the model plays; choose "
            "another one, and add --warmup N to imitate demonstrations first"
        )
    if "groups" in needs and config.group_size < 2:
        raise UsageError(
            f"the algorithm {name!r} compares the trajectories of a group, so group_size must be at least 2"
        )
    if "step_keys" in needs - env.provides:
        raise UsageError(
            f"the algorithm {name!r} needs step_keys, but the env {config.env.name!r} does not name its "
            "states; let the algorithm compare texts, or choose another env"
        )
    missing = sorted(needs - trainer.provides - {"groups", "step_keys"})
    if missing:
        raise UsageError(
            f"the algorithm {name!r} needs {', '.join(missing)}, which the trainer "
            f"{config.trainer.name!r} does not provide; choose another trainer or algorithm"
        )
    trainer.check(needs)
    return needs


@dataclass(frozen=True, slots=True)
class Stage:
    """The parts that play and judge episodes."""

    env: Env
    pool: EnvPool
    engine: Engine
    rewards: Sequence[WeightedReward]
    hooks: Hooks
    config: RunConfig
    display: Display
    runtime: Runtime

    @property
    def resources(self) -> Resources:
        """Return what there is for an engine or trainer to work with."""
        return resources(self.config, self.runtime)

    def simulator(
        self, engine: Engine | None = None, guide: Callable[[Agent], Agent] = lambda agent: agent
    ) -> Simulator:
        """Return a simulator on the stage's engine, or on another that has to `guide` the agents."""
        choice = self.config.agent
        pattern = plugins.make("agent", choice.name, choice.options)

        def make_agent() -> Agent:
            return guide(type(pattern)(pattern.config))

        return Simulator(
            self.pool,
            make_agent,
            engine or self.engine,
            self.config.simulator,
            self.hooks,
            self.display.warn,
            self.env.tools,
        )


def plan(
    config: RunConfig, engine: Engine, trainer: Trainer | None, model: Path | str, folder: Path | None
) -> Plan:
    """Return what the run is going to need of its runtime; `folder` is the run's, if any."""
    places = {"run directory": folder, "model": model}
    return Plan(
        trainer=trainer.crew if trainer else Crew(),
        engine=engine.crew,
        workers=config.simulator.workers,
        device=config.device,
        folders={name: place.absolute() for name, place in places.items() if isinstance(place, Path)},
    )


@asynccontextmanager
async def stage(
    config: RunConfig,
    model: Path | str,
    hooks: Hooks,
    display: Display,
    folder: Path | None = None,
    trainer: Trainer | None = None,
) -> AsyncIterator[Stage]:
    """Set up runtime, env, pool, rewards and engine, and take them down again.

    `folder` is the run's, and `trainer` is who trains, if there is a training.
    """
    async with AsyncExitStack() as closing:
        runtime = plugins.make("runtime", config.runtime.name, config.runtime.options)
        closing.callback(runtime.close)
        engine = plugins.make("engine", config.engine.name, config.engine.options)
        runtime.start(plan(config, engine, trainer, model, folder))
        env = plugins.make("env", config.env.name, config.env.options)
        closing.push_async_callback(env.close)
        pool = env_pool(config, env, runtime)
        closing.push_async_callback(pool.close)
        kept = folder / "rewards" if folder else None
        rewards = await closing.enter_async_context(started(weighted_rewards(config), kept))
        closing.push_async_callback(engine.close)
        await engine.start(model, resources(config, runtime))
        yield Stage(env, pool, engine, rewards, hooks, config, display, runtime)
