"""The weights of a model with an adapter, which the ranks of a trainer have."""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

from torch import Tensor

# Has the ranks write one of the files of weights, by the name of what `training` does; returns what is in it.
Fetch = Callable[[str], tuple[dict[str, Tensor], dict[str, str]]]


class FetchedWeights(Mapping[str, Tensor]):
    """Merged weights, or their parts (see `agentrl.interfaces.AdaptedWeights`): fetched when asked for."""

    def __init__(self, base: str, fetch: Fetch) -> None:
        """Take what the frozen model was loaded from, and how to fetch."""
        self.base = base
        self._fetch = fetch

    def __getitem__(self, name: str) -> Tensor:
        """Return a merged tensor."""
        return self._merged[name]

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self._merged)

    def __len__(self) -> int:
        """Return how many tensors there are."""
        return len(self._merged)

    def frozen(self) -> dict[str, Tensor]:
        """Return the weights of the model without its adapter."""
        return self._fetch("write_frozen")[0]

    def adapter(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return peft's config, JSON-safe, and the adapter's tensors by peft's names."""
        tensors, metadata = self._fetch("write_adapter")
        return json.loads(metadata["config"]), tensors

    @cached_property
    def _merged(self) -> dict[str, Tensor]:
        return self._fetch("write_weights")[0]
