"""Supervised updates of a model, for every stage of its training.

Shapes: B rows, T tokens, H width, N learnt tokens, V entries of the vocabulary.
"""

import time
from typing import Any

import torch
from torch import Tensor

from .card import Stage


class Learner:
    """A model, its optimizer, and what both have been through in one stage."""

    def __init__(self, stage: Stage, model: Any) -> None:
        """Begin `stage`."""
        self.model = model
        self.stage = stage
        self._optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.95), weight_decay=0.01)
        self._began = time.perf_counter()

    def update(self, ids_BT: Tensor, mask_BT: Tensor, rate: float, shown_BT: Tensor | None = None) -> None:
        """Learn the masked tokens of a batch at learning rate `rate`.

        What the model sees before each is `shown_BT`, if given; what it is to say is always of `ids_BT`.
        """
        learnt_BT = mask_BT[:, 1:]
        shown_BT = ids_BT if shown_BT is None else shown_BT
        hidden_BTH = self.model.model(shown_BT).last_hidden_state[:, :-1]
        logits_NV, targets_N = self.model.lm_head(hidden_BTH[learnt_BT]), ids_BT[:, 1:][learnt_BT]
        loss = torch.nn.functional.cross_entropy(logits_NV, targets_N)
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        accuracy = float((logits_NV.argmax(-1) == targets_N).float().mean())
        self.stage.record(loss.item(), accuracy, ids_BT.numel(), time.perf_counter() - self._began)
