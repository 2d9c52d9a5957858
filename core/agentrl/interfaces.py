"""What a plugin can be: the four kinds of the mission (env, agent, reward, algorithm) and the machinery.

A plugin of any kind is a subclass of one of these classes with a nested `Config`, chosen by name through an
entry point (`plugins`). What any number of plugins may take part in at once is a hook instead (`hookspecs`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

from pydantic import BaseModel, ConfigDict

from agentrl.footprint import Footprint, Rehearsal, Workload
from agentrl.types import (
    Action,
    Batch,
    Completion,
    Credit,
    Group,
    Need,
    Observation,
    Outcome,
    Sampling,
    Task,
    Trajectory,
)

if TYPE_CHECKING:
    from torch import Tensor

    from agentrl.conversation import Conversation
    from agentrl.runtime import Runtime


class PluginConfig(BaseModel):
    """Options of a plugin: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Plugin:
    """What all kinds share.

    `suggests` are defaults for the rest of the run configuration, by dotted key, for example
    `{"agent": "search", "simulator.max_turns": 6}`; only envs, algorithms, models, agents and trainers
    make any. What the user sets wins.
    `checked_with` are arguments for its check in `agentrl.testing`, for example `{"seconds": 120.0}`.
    """

    class Config(PluginConfig):
        """No options."""

    suggests: ClassVar[Mapping[str, Any]] = {}
    checked_with: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, config: Any = None) -> None:
        """Take a `Config`; None means all defaults."""
        self.config: Any = self.Config() if config is None else config


# The four kinds

# Plays one episode: is shown each observation in order, and returns the text that answers it.
Expert: TypeAlias = Callable[[Observation], str]


class Env(Plugin, ABC):
    """A world. One instance plays one episode at a time; the simulator makes as many as it needs.

    Attributes:
        provides: holds "step_keys" if its observations have a `state_key`.
        suggests_with: further suggestions, by the name of the model plugin with which they hold: a tiny model
            wants a warm-up that would harm a large one.
        held_out_splits: those that may be measured on, and never trained on.
        whole_scenarios: whether a scenario counts as solved if all its tasks are: then held-out tasks are
            drawn by scenarios, and `scenario_success` is measured.
        metric_names: what people call metrics, where they have a name for them, such as
            `{"success": "TGC"}`.
        tools: the functions as which actions can be called, as chat templates take them (JSON schemas of
            OpenAI's form); an agent that offers them passes the model's calls on as they are written.
    """

    provides: ClassVar[frozenset[Need]] = frozenset()
    suggests_with: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    held_out_splits: ClassVar[frozenset[str]] = frozenset()
    whole_scenarios: ClassVar[bool] = False
    metric_names: ClassVar[Mapping[str, str]] = {}
    tools: ClassVar[Sequence[Mapping[str, Any]]] = ()

    @abstractmethod
    def tasks(self, split: str) -> Sequence[Task]:
        """Return the tasks of a split, in a fixed order; the sequence may be lazy and huge.

        Raises:
            UsageError: the env has no such split; name those it has.
        """

    @abstractmethod
    async def reset(self, task: Task, seed: int) -> Observation:
        """Begin an episode and return what the agent sees first. Same task and seed, same episode."""

    @abstractmethod
    async def step(self, action: Action) -> Observation:
        """Apply `action`, whatever text it holds; nonsense gets an observation, not an exception."""

    @abstractmethod
    async def judge(self) -> Outcome:
        """Return the facts about how the episode ended. Called once, also after truncation."""

    def demonstrate(self, task: Task) -> Sequence[str] | Expert | None:
        """Return the texts an expert would write, one a turn, or None where the env has no expert.

        An expert that has to look first is a function instead, made anew for every episode: it may remember
        what it saw. Another instance plays, perhaps in another process, with a seed that is not known here.
        """
        return None

    def explain(self, task: Task) -> str | None:
        """Say in words what counts as success in a task, for people; None where there is nothing to add."""
        return None

    def fingerprint(self) -> Mapping[str, str]:
        """Return the SHA-256 of every data file the tasks depend on, by a readable name."""
        return {}

    async def close(self) -> None:
        """Release what the env holds. May be called twice, and after an error."""


class Agent(Plugin, ABC):
    """The scaffold: prompts, parsing, memory. One instance plays one episode."""

    @abstractmethod
    async def act(self, observation: Observation, conversation: "Conversation") -> Action:
        """Answer `observation`, asking the model through `conversation` as often as it takes."""

    async def close(self) -> None:
        """Release what the agent holds. Called once, after the last action or a failure."""


class Reward(Plugin, ABC):
    """A score for a finished trajectory. Weights and sums are the core's; weight 0 makes it a metric.

    Attributes:
        needs_references: whether it compares answers with right ones, so that it says nothing of an env that
            gives none.
    """

    needs_references: bool = False

    async def start(self, folder: Path | None) -> None:
        """Get ready to score; called before anything is played, and perhaps again after `close`.

        What people are to see of it may be left in `folder`, which whoever writes there has to make; None
        where nothing is kept.
        """

    @abstractmethod
    async def score(self, trajectory: Trajectory) -> float:
        """Return the score. `trajectory.outcome` is set; trajectories with errors are never scored.

        Many are scored side by side, while other episodes play: await what takes long.

        Raises:
            Unjudged: this trajectory cannot be judged, which is not the agent's doing. It teaches nothing.
        """

    async def close(self) -> None:
        """Release what the reward holds. May be called twice, and without `start`."""


@dataclass(frozen=True, slots=True)
class Aggregation:
    """How per-token losses become one number (see `aggregation.token_weights`).

    `length` is the constant, in tokens, that mode "constant" divides by.
    """

    mode: Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "constant"] = "token-mean"
    length: int | None = None


@dataclass(slots=True)
class Tokens:
    """The sampled tokens of a micro-batch, packed: every tensor is (N,), nothing needs a mask.

    All tokens of a trajectory are in one micro-batch, in the order in which they were sampled.

    Attributes:
        logprobs: under the actor being trained; carries the gradient. Nats.
        old_logprobs: under the actor before this update.
        rollout_logprobs: as the engine reported them; NaN where no model sampled the token.
        advantages: from `Algorithm.credit`.
        trajectory: index of the token's trajectory within the micro-batch, 0 to trajectories-1. Integers.
        turn: index of the token's turn within its trajectory. Integers.
        trajectories: how many trajectories the micro-batch holds.
        entropy: of the actor's distribution at each token, no gradient. Nats.
        reference_logprobs: under the reference; None unless needed.
        returns: from `Algorithm.credit`; None unless given.
        values: under the critic, with gradient; None unless needed.
        old_values: under the critic before this update; None unless needed.
        logged: what `log` collected.
    """

    logprobs: "Tensor"
    old_logprobs: "Tensor"
    rollout_logprobs: "Tensor"
    advantages: "Tensor"
    trajectory: "Tensor"
    turn: "Tensor"
    trajectories: int
    entropy: "Tensor"
    reference_logprobs: "Tensor | None" = None
    returns: "Tensor | None" = None
    values: "Tensor | None" = None
    old_values: "Tensor | None" = None
    logged: "dict[str, Tensor]" = field(default_factory=dict)

    def log(self, name: str, per_token: "Tensor") -> None:
        """Report a number for every token, (N,); the metric is its mean over the update's tokens."""
        self.logged[name] = per_token.detach()


class Algorithm(Plugin, ABC):
    """Credit assignment and a loss. The trainer executes both and knows neither.

    Both may be called in another thread than the hooks that an algorithm implements: keep no state.
    """

    @property
    def needs(self) -> frozenset[Need]:
        """Return what must be there before the run can start; may depend on `config`."""
        return frozenset()

    @property
    def aggregation(self) -> Aggregation:
        """Return how per-token losses become one number."""
        return Aggregation()

    @property
    def skips_zero_advantage(self) -> bool:
        """Return whether a trajectory without any advantage has no loss, so that it need not be computed."""
        return False

    @abstractmethod
    def credit(self, batch: Batch) -> list[list[Credit]]:
        """Return the credit of each trajectory of each group of `batch.groups`, over sampled tokens."""

    @abstractmethod
    def loss(self, tokens: Tokens) -> "Tensor":
        """Return the loss of each token, (N,); the trainer weighs, sums and backpropagates."""


# The machinery


class Curriculum(Plugin, ABC):
    """Which tasks to play next."""

    @abstractmethod
    def start(self, tasks: Sequence[Task], seed: int) -> None:
        """Take the training tasks. Called once, before `choose` or `restore`."""

    @abstractmethod
    def choose(self, n: int) -> list[Task]:
        """Return `n` tasks for the next update."""

    def sizes(self, tasks: Sequence[Task], group_size: int) -> list[int]:
        """Return how many trajectories each of the chosen `tasks` gets; here, `group_size` for each.

        At least 1 (2 where the algorithm compares the trajectories of a group); the sum must not exceed
        `len(tasks) * group_size`.
        """
        return [group_size] * len(tasks)

    def learn(self, groups: Sequence[Group]) -> None:
        """Take note of how the chosen tasks went."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return all that `restore` needs, JSON-safe."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state` exactly."""


class Tokenizer(Protocol):
    """What the core asks of a tokenizer: the methods of transformers' `PreTrainedTokenizerBase`."""

    eos_token_id: int | None

    def encode(self, text: str, add_special_tokens: bool = ...) -> list[int]:
        """Return the ids of `text`."""
        ...

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = ...) -> str:
        """Return the text of `token_ids`."""
        ...

    def apply_chat_template(
        self, conversation: list[dict[str, Any]], *, tokenize: bool, add_generation_prompt: bool, **more: Any
    ) -> Any:
        """Return the conversation as the model's chat template writes it: a str if not `tokenize`.

        `more` is what the template gets besides: `tools`, where there are any.
        """
        ...


class Weights(Protocol):
    """The actor's weights on their way to an engine."""

    def items(self) -> "Iterable[tuple[str, Tensor]]":
        """Yield each parameter's name, as the model's `state_dict` has it, and its tensor.

        May be asked for again, and may make a tensor only then: who keeps none needs no room for all.
        """
        ...


@runtime_checkable
class AdaptedWeights(Weights, Protocol):
    """Weights of a frozen model and a LoRA adapter: `items` are merged; an engine may have the parts.

    Attributes:
        base: directory or name of the frozen model; who has started with it needs the adapter alone.
    """

    base: str

    def frozen(self) -> Weights:
        """Return the frozen model's, under the same names."""
        ...

    def adapter(self) -> "tuple[dict[str, Any], dict[str, Tensor]]":
        """Return the adapter as peft saves it: the config, JSON-safe, and the tensors by peft's names."""
        ...


@dataclass(frozen=True, slots=True)
class Resources:
    """What a run gives an engine or trainer to work with.

    `threads` are for torch: the engine and the trainer of one process take turns, or, where episodes are
    played while the trainer works, get half of them each.
    `device` is "cpu", "cuda" or "cuda:N".
    `runtime` starts processes; None stands for `local`, on this machine. It goes to no other process.
    """

    threads: int = 1
    device: str = "cpu"
    seed: int = 0
    runtime: "Runtime | None" = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Crew:
    """The processes of its own that an engine or trainer works in.

    `processes` is 0 for one that works in the process of the run; `gpus` is what each of them needs where the
    run's device is a GPU.
    """

    processes: int = 0
    gpus: int = 1


class Engine(Plugin, ABC):
    """Generates tokens."""

    tokenizer: Tokenizer
    context_length: int

    @property
    def crew(self) -> Crew:
        """Return the processes that it will work in; may depend on `config`."""
        return Crew()

    def footprint(self, model: Path | str, resources: Resources, work: Workload) -> Footprint | None:
        """Return what it will take of memory, from the model's config alone; None if it cannot say.

        Raises:
            UsageError: the config cannot be read.
        """
        return None

    @abstractmethod
    async def start(self, model: Path | str, resources: Resources) -> None:
        """Load the model and set `tokenizer` and `context_length` (tokens)."""

    @abstractmethod
    async def generate(self, token_ids: Sequence[int], sampling: Sampling, session: str) -> Completion:
        """Continue `token_ids`. Requests of one `session` extend one another, so their prefix may be kept.

        May be cancelled, which frees what the request holds.
        The caller leaves room: `len(token_ids) + sampling.max_tokens <= context_length`.
        """

    def release(self, session: str) -> None:
        """Forget what is kept for `session`; unknown sessions are fine."""

    @abstractmethod
    async def load_weights(self, weights: Weights, version: int) -> None:
        """Generate with these weights from now on; later requests get nothing that was cached under others.

        Requests in work are finished first, and later ones wait, so that a completion is of one version. An
        engine may offer other ways: requests in work read again, with these weights, all that they have, and
        go on; then `Completion.changes` says from which token on these weights sampled. Or they go on with
        what was cached for them; then the completion counts as one of the weights that it began with.
        """

    async def try_room(self, tokens: int, episodes: int) -> None:
        """Try out whether `episodes` side by side, of so many tokens each, find room; leave all as it was.

        Here one is read, which is enough where room for others is set aside at the start.

        Raises:
            OutOfMemory: they do not; it says what helps.
        """
        word = self.tokenizer.encode("word ", add_special_tokens=False) or [0]
        new = min(4, tokens - 1)
        prompt = (word * tokens)[: tokens - new]
        await self.generate(prompt, Sampling(max_tokens=new), "rehearsal")
        self.release("rehearsal")

    async def sleep(self) -> None:
        """Give memory back while the trainer works."""

    async def wake(self) -> None:
        """Undo `sleep`."""

    async def close(self) -> None:
        """Release everything. May be called twice."""


class Trainer(Plugin, ABC):
    """Updates weights. Executes an algorithm without knowing it."""

    provides: ClassVar[frozenset[Need]] = frozenset({"reference", "logprobs"})

    @property
    def crew(self) -> Crew:
        """Return the processes that it will work in; may depend on `config`."""
        return Crew()

    def check(self, needs: frozenset[Need]) -> None:
        """Refuse options that are of no use where `needs` is all that is asked for. Called before `start`.

        Raises:
            UsageError: it names the option.
        """

    def footprint(
        self, model: Path | str, needs: frozenset[Need], resources: Resources, work: Workload
    ) -> Footprint | None:
        """Return what it will take of memory, from the model's config alone; None if it cannot say.

        Raises:
            UsageError: the config cannot be read.
        """
        return None

    @abstractmethod
    def start(self, model: Path | str, needs: frozenset[Need], steps: int, resources: Resources) -> None:
        """Load the actor, and what `needs` asks for; `steps` is the length of the schedule."""

    @abstractmethod
    def prepare(self, groups: list[Group], needs: frozenset[Need], version: int | None = None) -> Batch:
        """Return the batch with what `needs` asks for.

        A trainer that trusts the engine's log-probabilities, audited, may leave `logprobs` out. `version` is
        that of the actor's weights: what others sampled is not audited (see `Engine.load_weights`); None if
        all tokens are theirs. An update that follows comes in the same thread, which may be another one than
        `start` was called in.
        """

    @abstractmethod
    def update(self, batch: Batch, credits: list[list[Credit]], algorithm: Algorithm) -> dict[str, float]:
        """Train on the batch and return metrics: loss, gradient norm, learning rate, what `loss` logged."""

    def rehearse(self, tokens: int, group_size: int, algorithm: Algorithm) -> Rehearsal | None:
        """Try out whether an update of the longest episodes fits, and leave everything exactly as it was.

        Args:
            tokens: of the longest episode.
            group_size: episodes of a task.
            algorithm: whose loss it is.

        Returns:
            What it took; None if this trainer cannot try.

        Raises:
            OutOfMemory: it does not fit; it says what helps.
        """
        return None

    @abstractmethod
    def weights(self) -> Weights:
        """Return the actor's weights for an engine."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write all that `load` needs to go on exactly."""

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote."""

    @abstractmethod
    def save_model(self, folder: Path) -> None:
        """Write the actor as a model directory that `--model` and transformers can load."""

    def close(self) -> None:
        """Release everything. May be called twice."""


class Model(Plugin, ABC):
    """A model that a distribution ships, so that `--model NAME` finds it."""

    @abstractmethod
    def path(self) -> Path:
        """Return a directory that transformers can load, with tokenizer and chat template."""
