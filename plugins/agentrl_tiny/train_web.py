"""Make the model `tiny_web` of `tiny`: it knows how pages look as text, and finds things in them.

    python -m agentrl_tiny.train_web --output FOLDER

It gets a tokenizer of its own, see `web_tokenizer`; tokens that the other model knew keep what it knew of
them. Then come page drills, at first many of one page and many short goals, for these ask most of it; and
page drills in which it finds slips in what it has written.

It sees no env in which pages are acted upon: those are learnt by imitating the env's own demonstrations, and
by reinforcement learning. Same seed, thread count and library versions: same model.
"""

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, LlamaForCausalLM

from .card import WEB_CARD, write_drilled_card
from .demonstrations import encode, stacked
from .drilling import Batch, faultless, follow_orders, steady, teach
from .pages import Pages
from .tokenizer import as_symbols, save_tokenizer
from .web_tokenizer import build_web_tokenizer, likenesses

UPDATES, SLIPPING_UPDATES, SIZE = 4000, 1000, 16
# Over the first part of the updates, pages grow from the fewest controls to the most, more words are not one
# token, and more pages are acted upon instead of asked about.
GROWING, FEWEST, MOST, LONGER, ACTED = 0.5, 3, 8, 0.5, 0.7
# So many dialogues are drawn together, and those of about one length become a batch.
DRAWN = 8 * SIZE
DAMPING = 0.1
# How much tokens differ from those that they are like at first, beside what words differ by.
UNLIKE = 0.5


def translate(model: Any, known: Mapping[str, int], tokenizer: Any) -> None:
    """Give `model` the vocabulary of `tokenizer`; `known` is that of the one it had.

    Tokens that it knew keep their rows. All others get rows by chance, and what they are written by follows
    from what they are read as in the way that it does for known words, so that they can be copied at once.
    Those that are like others get the rows of these, changed in the same way for all of a kind.
    """
    old = torch.stack([layer.weight.detach().clone() for layer in _ends(model)])
    words = [number for token, number in known.items() if token[0] == "Ġ" and token[1:].isalpha()]
    follows, spread = fitted(*old[:, words]), float(old[0, words].std())
    read = torch.randn(len(tokenizer), old.shape[2]) * spread
    rows, places = torch.stack([read, read @ follows]), tokenizer.get_vocab()
    for token in places.keys() & known.keys():
        rows[:, places[token]] = old[:, known[token]]
    for kind in likenesses():
        change = torch.randn(old.shape[2]) * spread * UNLIKE
        for token, other in kind:
            both = torch.stack([change, change @ follows])
            rows[:, places[as_symbols(token)]] = rows[:, places[as_symbols(other)]] + both
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        for layer, new in zip(_ends(model), rows, strict=True):
            layer.weight.copy_(new)


def fitted(given: Tensor, wanted: Tensor) -> Tensor:
    """Return the linear map that takes the rows of `given` nearest to those of `wanted`."""
    damped = given.T @ given + DAMPING * torch.eye(given.shape[1])
    found: Tensor = torch.linalg.solve(damped, given.T @ wanted)
    return found


def _ends(model: Any) -> tuple[Any, Any]:
    return model.get_input_embeddings(), model.get_output_embeddings()


def drills(tokenizer: Any, updates: int, seed: int) -> Callable[[int], Batch]:
    """Return what makes the batch of a number: dialogues about as long, drawn some batches ahead."""
    chance = random.Random(seed)
    pages = Pages(chance)
    ahead: list[list[tuple[list[int], list[bool]]]] = []

    def draw(number: int) -> None:
        grown = min(1.0, number / max(1, GROWING * updates))
        pages.most, pages.longer = round(FEWEST + (MOST - FEWEST) * grown), LONGER * grown
        makes = [pages.dialogue if chance.random() < ACTED * grown else pages.one_page for _ in range(DRAWN)]
        rows = sorted((encode(tokenizer, make()) for make in makes), key=lambda row: len(row[0]))
        ahead.extend(rows[first : first + SIZE] for first in range(0, DRAWN, SIZE))
        chance.shuffle(ahead)

    def batch(number: int) -> Batch:
        if not ahead:
            draw(number)
        return stacked(ahead.pop(), tokenizer.pad_token_id)

    return batch


def fluency(model: Any, tokenizer: Any, seed: int, dialogues: int = 512) -> float:
    """Return the share of dialogues never seen of which every token is the likeliest one."""
    pages = Pages(random.Random(f"fluency {seed}"))
    right = sum(faultless(model, *pages.batch(tokenizer, 32)) for _ in range(dialogues // 32))
    return right / (dialogues // 32 * 32)


def train(base: Path, output: Path, updates: int, slipping_updates: int, seed: int) -> None:
    """Make the model of that in `base` and write it to `output` with tokenizer and card."""
    torch.set_num_threads(1)  # More threads than one are slower at this size, and change the sums.
    torch.manual_seed(seed)
    tokenizer = build_web_tokenizer()
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    translate(model, AutoTokenizer.from_pretrained(base).get_vocab(), tokenizer)
    slipping = Pages(random.Random(f"slips {seed}"))
    stages = [
        teach(model, "page drills", drills(tokenizer, updates, seed), updates),
        steady(
            model, "page drills with slips", lambda: slipping.batch(tokenizer, SIZE), slipping_updates, seed
        ),
    ]
    model.save_pretrained(output)
    save_tokenizer(tokenizer, output)
    solved = fluency(model, tokenizer, seed)
    print(f"{solved:.1%} of new dialogues are written without a mistake")
    parameters = model.num_parameters()
    write_drilled_card(WEB_CARD, "train_web", output, parameters, len(tokenizer), seed, stages, solved)


def main() -> None:
    """Read the command line."""
    follow_orders(__doc__, train, UPDATES, SLIPPING_UPDATES)


if __name__ == "__main__":
    main()
