"""Embeds texts with a model of transformers, one text after the other.

A text alone has the same embedding whatever is embedded beside it; in a padded batch the last digits would
depend on the others, and so would a run's rewards.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import Tensor
from transformers.utils.logging import disable_progress_bar

from agentrl.errors import UsageError

if TYPE_CHECKING:
    from agentrl_similarity import Similarity

# A bar for loading a small model would clutter every run.
disable_progress_bar()

# Texts whose embeddings are remembered: answers and references come again and again.
REMEMBERED = 8192


def load(config: "Similarity.Config") -> "Embedder":
    """Return the model that is configured.

    Raises:
        UsageError: it cannot be loaded.
    """
    if config.model.startswith(("/", "./", "../", "~")) and not Path(config.model).is_dir():
        raise UsageError(
            f"there is no embedding model in {config.model}: give a folder as rewards.similarity.model"
        )
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(config.model)
        model = transformers.AutoModel.from_pretrained(config.model, dtype=torch.float32)
        return Embedder(tokenizer, model.eval().to(config.device), config)
    except (OSError, ValueError, RuntimeError) as error:
        cause = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UsageError(
            f"the embedding model {config.model!r} cannot be loaded: {cause}; give the folder of an encoder "
            "with its tokenizer, or a hub name that can be reached from here, as rewards.similarity.model"
        ) from error


class Embedder:
    """Tells how alike texts are."""

    def __init__(self, tokenizer: Any, model: Any, config: "Similarity.Config") -> None:
        """Take the model and its tokenizer."""
        self._tokenizer = tokenizer
        self._model = model
        self._config = config
        positions = getattr(model.config, "max_position_embeddings", config.longest)
        self._longest = min(config.longest, positions, tokenizer.model_max_length)
        self._embed = lru_cache(REMEMBERED)(self._compute)

    def closest(self, answer: str, references: Sequence[str]) -> float:
        """Return the largest cosine of the answer with a reference, -1 to 1."""
        own = self._embed(answer)
        return max(float(own @ self._embed(reference)) for reference in references)

    @torch.inference_mode()
    def _compute(self, text: str) -> Tensor:
        """Return the embedding of a text, of length 1: (D,)."""
        config = self._config
        # Tokenizers refuse lone surrogates.
        known = (config.prefix + text).encode("utf-8", "replace").decode()
        inputs = self._tokenizer(known, return_tensors="pt", truncation=True, max_length=self._longest)
        if not inputs["input_ids"].numel():
            return torch.zeros(self._model.config.hidden_size, dtype=torch.float64)
        inputs = inputs.to(config.device)
        states_TD = self._model(**inputs).last_hidden_state[0]
        pooled: Tensor
        if config.pooling == "mean":
            pooled = states_TD.mean(0)
        else:
            pooled = states_TD[0 if config.pooling == "first" else -1]
        return torch.nn.functional.normalize(pooled.double(), dim=0).cpu()
