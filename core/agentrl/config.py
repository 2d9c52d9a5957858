"""The configuration of a run: what can be set, and how what was said becomes one `RunConfig`.

Precedence, lowest first: defaults, what the chosen plugins suggest, run file, command line flags, `--set`.
Every value keeps where it came from; every plugin's options are checked against its `Config` before anything
heavy starts.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, field_validator

from agentrl.machine import find_device

Options = dict[str, Any]


class _Section(BaseModel):
    """Immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Choice(_Section):
    """A plugin by name, with its options."""

    name: str
    options: Options = {}


class RewardChoice(_Section):
    """The weight of a reward, with its options; weight 0 makes it a metric."""

    weight: float = Field(default=1.0, allow_inf_nan=False)
    options: Options = {}


def _choice(value: Any) -> Any:
    """Read `NAME` and `{name: NAME, OPTION: ...}`."""
    if isinstance(value, str):
        return {"name": value}
    return _with_options(value, "name")


def _reward(value: Any) -> Any:
    """Read `WEIGHT` and `{weight: WEIGHT, OPTION: ...}`."""
    if isinstance(value, int | float):
        return {"weight": value}
    return _with_options(value, "weight")


def _with_options(value: Any, own: str) -> Any:
    if not isinstance(value, Mapping) or set(value) <= {own, "options"}:
        return value
    options = {key: each for key, each in value.items() if key != own}
    return {**({own: value[own]} if own in value else {}), "options": options}


PluginChoice = Annotated[Choice, BeforeValidator(_choice)]
WeightedChoice = Annotated[RewardChoice, BeforeValidator(_reward)]


class SimulatorConfig(_Section):
    """How episodes are played."""

    concurrency: int = Field(default=256, ge=1, description="episodes side by side")
    workers: int = Field(default=0, ge=0, description="env worker processes; 0 plays envs in this process")
    max_turns: int = Field(default=8, ge=1, description="turns an episode")
    max_new_tokens: int = Field(default=256, ge=1, description="sampled tokens each time the agent asks")
    max_tokens: int | None = Field(default=None, ge=1, description="sampled tokens a trajectory; null: any")
    temperature: float = Field(default=1.0, ge=0, description="of sampling; 0 takes the likeliest token")
    top_p: float = Field(default=1.0, gt=0, le=1, description="sample from the likeliest of this mass")
    reset_timeout: float = Field(default=60.0, gt=0, description="seconds Env.reset may take")
    step_timeout: float = Field(default=60.0, gt=0, description="seconds Env.step and Env.judge may take")
    act_timeout: float = Field(
        default=1800.0, gt=0, description="seconds Agent.act may take, waiting for the engine included"
    )
    cut_off: float | None = Field(
        default=None,
        gt=1,
        description="in training, cut an episode off after so many times the median's time; null: never",
    )
    reset_retries: int = Field(default=2, ge=0, description="how often a failed reset is tried again")
    watchdog: float = Field(default=120.0, gt=0, description="seconds until it is said who waits")


class EvaluationConfig(_Section):
    """How the model is measured on held-out tasks."""

    split: str = Field(default="dev", description="the env's split that is measured on")
    tasks: int = Field(default=200, ge=1, description="how many tasks are drawn from it, once for the run")
    repeats: int = Field(default=1, ge=1, description="trajectories a task; pass@k is given for k up to this")
    every: int = Field(default=50, ge=0, description="steps between; 0 measures before and after only")
    temperature: float | None = Field(default=None, ge=0, description="of sampling; null: as in training")
    seed: int = Field(default=0, description="draws the tasks and plays them")
    audit: tuple[str, ...] = Field(
        default=("success",), description="metrics of 0 to 1 that have to rise with the training's reward"
    )


class CheckpointsConfig(_Section):
    """When checkpoints are written and how many stay."""

    every: int = Field(default=10, ge=0, description="steps between checkpoints; 0 saves only at the end")
    keep: int = Field(default=2, ge=1, description="how many of the last checkpoints stay")


class RunConfig(_Section):
    """All there is to say about a run. `resolve` makes complete ones."""

    env: PluginChoice
    agent: PluginChoice
    algorithm: PluginChoice = Choice(name="grpo")
    rewards: dict[str, WeightedChoice] = {}
    model: PluginChoice = Choice(name="tiny")
    engine: PluginChoice = Choice(name="torch")
    trainer: PluginChoice = Choice(name="torch")
    curriculum: PluginChoice = Choice(name="uniform")
    runtime: PluginChoice = Choice(name="local")
    hooks: dict[str, Options] = Field(default={}, description="options of hook plugins, by name")
    seed: int = Field(default=0, ge=0, description="all randomness of the run derives from it")
    train_split: str = Field(default="train", description="the env's split that is trained on")
    steps: int = Field(default=100, ge=0, description="updates")
    tasks_per_step: int = Field(default=16, ge=1, description="tasks that are played for an update")
    group_size: int = Field(default=8, ge=1, description="trajectories a task in an update")
    refills: int = Field(
        default=0, ge=0, description="how often a step may choose further tasks for groups that were not kept"
    )
    staleness: int = Field(
        default=0,
        ge=0,
        description="how many updates old the weights may be that sampled; from 1 on, episodes are played "
        "while the trainer works",
    )
    warmup: int = Field(default=0, ge=0, description="updates that imitate Env.demonstrate first")
    warmup_learning_rate: float = Field(default=1e-4, gt=0, description="the learning rate meanwhile")
    simulator: SimulatorConfig = SimulatorConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoints: CheckpointsConfig = CheckpointsConfig()
    probe: bool | None = Field(
        default=None,
        description="try out before the first update whether the longest episodes fit into memory; null: "
        "where there is a GPU",
    )
    episode_tokens: int | None = Field(
        default=None,
        ge=2,
        description="of the longest episode, where memory is estimated or tried out; null: twice what it "
        "may sample; never more than the model's context",
    )
    threads: int | None = Field(default=None, ge=1, description="of torch; null: all that are left")
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        validate_default=True,
        description="cpu, cuda or cuda:N; auto looks for a GPU",
    )

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)

    @field_validator("device")
    @classmethod
    def _found_device(cls, device: str) -> str:
        return find_device() if device == "auto" else device

    @property
    def sources(self) -> Mapping[str, str]:
        """Return who set each key that is not a default."""
        return self._sources

    def to_document(self) -> dict[str, Any]:
        """Return the configuration as a run file says it."""
        return {name: _document(getattr(self, name)) for name in type(self).model_fields}


def _document(value: Any) -> Any:
    """Return a part of the configuration with the options beside the name or weight."""
    if isinstance(value, Choice):
        return {"name": value.name, **value.options} if value.options else value.name
    if isinstance(value, RewardChoice):
        return {"weight": value.weight, **value.options} if value.options else value.weight
    if isinstance(value, BaseModel):
        return {name: _document(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {key: _document(each) for key, each in value.items()}
    return value


def resolve(
    document: Mapping[str, Any] | None = None,
    flags: Mapping[str, Any] | None = None,
    sets: Sequence[str] = (),
    source: str = "run file",
) -> RunConfig:
    """Return the complete configuration that was asked for, checked, with every plugin's options.

    Args:
        document: what a run file says: nested mappings, or dotted keys.
        flags: the same, from the command line; wins over `document`.
        sets: texts `key=value` with a dotted key and a YAML value; win over both.
        source: what to call `document` in messages.

    Raises:
        UsageError: a key is unknown or missing, a value is of the wrong type, or a plugin cannot be used.
    """
    from agentrl.resolution import resolve as resolve_layers

    return resolve_layers(document or {}, flags or {}, sets, source)


def load_run_file(path: Path) -> dict[str, Any]:
    """Return what a run file says.

    Raises:
        UsageError: it is not there, or is not a mapping in YAML.
    """
    from agentrl.run_files import load_run_file as load

    return load(path)
