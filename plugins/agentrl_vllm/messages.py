"""What goes to the one who works with vLLM, and what comes back; all of it can cross to another process."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

from agentrl.interfaces import Weights
from agentrl.types import Sampling

# What becomes of requests in work when weights come.
InFlight: TypeAlias = Literal["wait", "recompute", "keep"]


@dataclass(frozen=True, slots=True)
class Setup:
    """How vLLM is to be started.

    Attributes:
        model: a directory or the name of a model.
        arguments: of vLLM's `EngineArgs`.
        end_ids: ids that end a turn.
        threads: of torch, for one who computes on the CPU.
        in_flight: what becomes of requests in work when weights come.
    """

    model: str
    arguments: dict[str, Any]
    end_ids: tuple[int, ...]
    threads: int
    in_flight: InFlight = "wait"


@dataclass(frozen=True, slots=True)
class Ask:
    """Continue `token_ids`; the answer is a `Completion`."""

    number: int
    token_ids: list[int]
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class Cargo:
    """Weights on their way: a model's, an adapter's for the model that is there, or both.

    Attributes:
        version: of the weights.
        tensors: the model's, within one process.
        folder: of all that comes as files.
        holds: which folders it has: MODEL with safetensors files, ADAPTER with what peft saves.
    """

    MODEL: ClassVar = "model"
    ADAPTER: ClassVar = "adapter"

    version: int
    tensors: Weights | None = None
    folder: Path | None = None
    holds: frozenset[str] = frozenset()

    @property
    def model(self) -> Weights | Path | None:
        """Return the model's weights, or where they are; None for those that are there."""
        return self._inside(self.MODEL) if self.tensors is None else self.tensors

    @property
    def adapter(self) -> Path | None:
        """Return where the adapter is."""
        return self._inside(self.ADAPTER)

    def _inside(self, name: str) -> Path | None:
        return None if self.folder is None or name not in self.holds else self.folder / name


@dataclass(frozen=True, slots=True)
class Load:
    """Generate with other weights from now on.

    That is as soon as all that was asked before is answered, or at once; see `Setup.in_flight`.
    """

    number: int
    cargo: Cargo


@dataclass(frozen=True, slots=True)
class Rest:
    """Give memory back, or take it again, once all that was asked before is answered."""

    number: int
    asleep: bool


@dataclass(frozen=True, slots=True)
class Cancel:
    """Forget the `Ask` of this number; there is no answer."""

    number: int


@dataclass(frozen=True, slots=True)
class Close:
    """Give up everything and end; there is no answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of the message of this number: `value`, or `error` in one sentence.

    The set-up has number 0. After an error that is `fatal` nothing more is answered.
    """

    number: int
    value: Any = None
    error: str | None = None
    fatal: bool = False


Task: TypeAlias = Ask | Load | Rest
Message: TypeAlias = Task | Cancel | Close
