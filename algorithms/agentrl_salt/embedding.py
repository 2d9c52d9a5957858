"""Tells which texts mean the same by what a language model makes of them.

A text is the mean of its tokens' last hidden states, from any encoder or decoder that transformers can load.
torch and transformers are imported where a model is used, not before.
"""

import os
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from agentrl.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

# What a model that names no limit is given to read, in tokens.
LONGEST = 512
# How many texts are kept beyond the update in which they came up.
_KEPT = 20_000


class Embedder:
    """Turns texts into directions, (D,) each of length 1; a text without tokens is 0.

    Every text is read alone: beside others it would be padded, and its numbers would depend on theirs.
    """

    def __init__(self, model: str) -> None:
        """Load a model, a folder or hub name, on the CPU.

        Raises:
            UsageError: transformers is missing, or cannot load it.
        """
        try:
            from transformers import AutoModel, AutoTokenizer
        except ImportError as error:
            raise UsageError(
                f"match 'embedding' needs torch and transformers: {error}; install agentrl-platform[laptop], "
                "or choose match 'normalised'"
            ) from error
        name = os.path.expanduser(model)
        if name.startswith((".", os.sep)) and not os.path.isdir(name):
            raise UsageError(f"embedding_model {model!r}: there is no such folder")
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(name)
            self._model = AutoModel.from_pretrained(name).eval()
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise UsageError(f"embedding_model {model!r} cannot be loaded: {reason}") from error
        room = getattr(self._model.config, "max_position_embeddings", None) or LONGEST
        self._longest = min(self._tokenizer.model_max_length, room)
        self._known: dict[str, Tensor] = {}

    def __call__(self, text: str) -> "Tensor":
        """Return the direction of a text."""
        if text not in self._known:
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[text] = self._read(text)
        return self._known[text]

    def _read(self, text: str) -> "Tensor":
        import torch

        read = self._tokenizer(text, truncation=True, max_length=self._longest, return_tensors="pt")
        if not read.input_ids.numel():
            return torch.zeros(self._model.config.hidden_size)
        with torch.inference_mode():
            states_TD: Tensor = self._model(input_ids=read.input_ids.long()).last_hidden_state[0].float()
        return torch.nn.functional.normalize(states_TD.mean(0), dim=0)


def cluster(texts: Collection[str], embed: "Callable[[str], Tensor]", threshold: float) -> dict[str, str]:
    """Return for each text the one that stands for it.

    In alphabetical order, a text joins the most similar of those that stand for others if their cosine is at
    least `threshold`, and stands for itself if not. So the order in which texts come changes nothing.
    """
    import torch

    leaders: list[str] = []
    directions: list[Tensor] = []
    found = {}
    for text in sorted(texts):
        direction = embed(text)
        cosines = torch.stack(directions) @ direction if directions else torch.zeros(0)
        if directions and float(cosines.max()) >= threshold:
            found[text] = leaders[int(cosines.argmax())]
            continue
        leaders.append(text)
        directions.append(direction)
        found[text] = text
    return found
