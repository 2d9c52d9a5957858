"""Trains with DeepSpeed: weights, gradients and optimizer state split over ranks as ZeRO does it.

`DeepSpeedTrainer` refines the torch trainer: token tries, losses, critic and ranks are the same. It is
imported on first use, and DeepSpeed itself in the ranks' processes only.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentrl_deepspeed.trainer import DeepSpeedTrainer

__all__ = ["DeepSpeedTrainer"]


def __getattr__(name: str) -> Any:
    if name == "DeepSpeedTrainer":
        from agentrl_deepspeed.trainer import DeepSpeedTrainer

        return DeepSpeedTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
