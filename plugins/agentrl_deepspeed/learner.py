"""A model that learns in an engine of DeepSpeed."""

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from agentrl.errors import UsageError
from agentrl_torch import checkpoint, optimization
from agentrl_torch.learner import Learner

# What DeepSpeed calls a checkpoint, which has a folder of its own already.
_TAG = "state"


@dataclass(frozen=True, slots=True)
class ZeroLearner(Learner):
    """A model with its optimizer; `network` is the engine.

    Attributes:
        stage: of ZeRO.
        ranks: how many processes split weights or state.
    """

    stage: int
    ranks: int

    @property
    def _engine(self) -> Any:
        return self.network

    def clear(self) -> None:
        """Forget gradients."""
        self._engine.optimizer.zero_grad()

    def step(self, update: int) -> float:
        """Move the weights by their gradient and return its norm.

        Raises:
            AgentRLError: the gradient is not finite; the weights stay as they are.
        """
        self._engine.step()
        if not self._engine.was_step_applied():
            raise optimization.not_finite(math.nan, update, f"{self.name}'s ")
        return float(self._engine.get_global_grad_norm())

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield whole tensors by name, tied ones once; all ranks have to go through all of them."""
        import deepspeed

        gathered = deepspeed.zero.GatheredParameters
        for name, parameter in self.module.named_parameters():
            with gathered([parameter]) if self.stage == 3 else nullcontext():
                yield name, parameter.detach()
        parameters = {name for name, _ in self.module.named_parameters(remove_duplicate=False)}
        for name, buffer in self.module.state_dict().items():
            if name not in parameters:
                yield name, buffer

    def save(self, folder: Path, *, write: bool) -> None:
        """Write weights and optimizer as DeepSpeed does: each rank what it has."""
        self._engine.save_checkpoint(str(folder / self.name), tag=_TAG, save_latest=False)
        if write:
            checkpoint.write_state(folder / self.name, self._shape())

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote.

        Raises:
            UsageError: it is not there, or of another number of ranks or another stage.
        """
        shape = checkpoint.read_state(folder / self.name)
        if shape != self._shape():
            raise UsageError(
                f"the checkpoint {str(folder)!r} is split as ZeRO stage {shape['stage']} does it over "
                f"{shape['ranks']} ranks; resume with that trainer.stage and trainer.ranks"
            )
        self._engine.load_checkpoint(str(folder / self.name), tag=_TAG)

    def _shape(self) -> dict[str, int]:
        return {"stage": self.stage, "ranks": self.ranks}
