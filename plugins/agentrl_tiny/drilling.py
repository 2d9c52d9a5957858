"""How a model is drilled: the course of learning that all models made by drills share.

First it is taught; then it is steadied: it finds slips in what it has written, and learns to go on as if they
were not there. A model that has never seen a slip of its own writes nonsense from there on, and in
reinforcement learning that nonsense drowns the one token that was to blame.
Shapes: B rows of a batch, T tokens.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .card import Stage
from .learner import Learner

RATE = 1e-3
# Afterwards, this share of what it has written is replaced by any token.
SLIPPING_RATE, SLIPS = 5e-4, 0.05

# Token ids, and which of them are to be learnt; both (B, T).
Batch = tuple[Tensor, Tensor]


def teach(model: Any, name: str, batch: Callable[[int], Batch], updates: int) -> Stage:
    """Drill `model` on batches, each made when its number is up; `name` is that of the stage."""
    learner = Learner(Stage(name), model)
    for number in range(updates):
        rate = RATE * min(1.0, (number + 1) / 50, max(0.05, 2 * (1 - number / updates)))
        learner.update(*batch(number), rate)
        _tell(learner.stage)
    return learner.stage


def steady(model: Any, name: str, batch: Callable[[], Batch], updates: int, seed: int) -> Stage:
    """Drill `model` to go on rightly after slips: what it is to say is right, what it sees it said is not."""
    slips, learner = torch.Generator().manual_seed(seed), Learner(Stage(name), model)
    for number in range(updates):
        ids_BT, mask_BT = batch()
        slipped_BT = mask_BT & (torch.rand(ids_BT.shape, generator=slips) < SLIPS)
        any_BT = torch.randint(model.config.vocab_size, ids_BT.shape, generator=slips)
        rate = SLIPPING_RATE * (1 - number / updates)
        learner.update(ids_BT, mask_BT, rate, torch.where(slipped_BT, any_BT, ids_BT))
        _tell(learner.stage)
    return learner.stage


@torch.no_grad()
def faultless(model: Any, ids_BT: Tensor, mask_BT: Tensor) -> int:
    """Return in how many rows every token that is to be learnt is the likeliest one."""
    guessed_BT = model(ids_BT).logits[:, :-1].argmax(-1)
    return int(((guessed_BT == ids_BT[:, 1:]) | ~mask_BT[:, 1:]).all(1).sum())


def _tell(stage: Stage) -> None:
    if stage.updates % 100 == 0:
        print(stage, flush=True)


def follow_orders(
    doc: str | None, train: Callable[[Path, Path, int, int, int], None], updates: int, slipping_updates: int
) -> None:
    """Read the command line of a script that makes a model of another, and do as it says.

    Args:
        doc: of the script.
        train: takes the folders of the other model and of the new one, the updates of both stages, the seed.
        updates: of the first stage, if nothing else is said.
        slipping_updates: of the second.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the model")
    parser.add_argument("--base", type=Path, default=Path(__file__).parent / "checkpoint")
    parser.add_argument("--updates", type=int, default=updates)
    parser.add_argument("--slipping-updates", type=int, default=slipping_updates)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    train(options.base, options.output, options.updates, options.slipping_updates, options.seed)
