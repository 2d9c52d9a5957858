"""The built-in model: small enough to improve by reinforcement learning on one CPU thread in minutes.

`checkpoint/` holds it, with its card; `python -m agentrl_tiny.train` makes it anew. `checkpoint_code/` holds
one that knows words of code as well, for envs whose actions are programs, made by `agentrl_tiny.train_code`;
`checkpoint_web/` one that finds things in pages, for envs in a browser, made by `agentrl_tiny.train_web`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from agentrl.interfaces import Model


class Tiny(Model):
    """A transformer of 0.8 million parameters, small enough to learn on a CPU in minutes."""

    # Its thoughts are short; a turn that goes on longer has gone astray.
    suggests: ClassVar[Mapping[str, Any]] = {
        "simulator.max_new_tokens": 32,
        "trainer.learning_rate": 3e-4,
        "trainer.warmup_steps": 10,
        "trainer.schedule": "linear",
        "steps": 300,
    }

    def path(self) -> Path:
        """Return the folder with weights, tokenizer, chat template and card."""
        return Path(__file__).parent / "checkpoint"


class TinyCode(Tiny):
    """As `tiny`, with the words of code, and drilled in writing calls."""

    suggests: ClassVar[Mapping[str, Any]] = {**Tiny.suggests, "simulator.max_new_tokens": 160}

    def path(self) -> Path:
        """Return the folder with weights, tokenizer, chat template and card."""
        return Path(__file__).parent / "checkpoint_code"


class TinyWeb(Tiny):
    """As `tiny`, with a tokenizer for pages, and drilled in doing what a goal says."""

    suggests: ClassVar[Mapping[str, Any]] = {**Tiny.suggests, "simulator.max_new_tokens": 48}

    def path(self) -> Path:
        """Return the folder with weights, tokenizer, chat template and card."""
        return Path(__file__).parent / "checkpoint_web"
