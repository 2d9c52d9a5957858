"""Make the model `tiny_code` of `tiny`: it knows the words of code and errands, and how to pass details on.

    python -m agentrl_tiny.train_code --output FOLDER

The words of `code_words.txt` become tokens behind all others; then come errand drills, with copying drills of
the new words between them; then errand drills in which it finds slips in what it has written.

It sees no env in which errands are run: those are learnt by imitating the env's own demonstrations, and by
reinforcement learning. Same seed, thread count and library versions: same model.
"""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM

from agentrl.plugins import make

from . import drilling
from .card import CODE_CARD, Stage, write_drilled_card
from .drilling import Batch
from .drills import SHORT, drill
from .errands import Errands
from .tokenizer import build_tokenizer, code_words, save_tokenizer
from .train import ENV
from .vocabulary import env_words, words_of

UPDATES, SLIPPING_UPDATES, SIZE = 6000, 1500, 24
# One update in so many is a copying drill.
COPYING = 4


def grow(model: Any, size: int) -> int:
    """Give `model` a vocabulary of `size`, with new rows like those it has; return how many it had."""
    old = int(model.config.vocab_size)
    model.resize_token_embeddings(size, mean_resizing=False)
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            layer.weight[old:].normal_(0.0, float(layer.weight[:old].std()))
    return old


def teach(model: Any, tokenizer: Any, first: int, updates: int, seed: int) -> Stage:
    """Drill `model`, whose tokens from `first` on are new."""
    chance = random.Random(seed)
    errands = Errands(chance)
    words = replace(words_of(tokenizer, make("env", ENV)), words=list(range(first, len(tokenizer))))

    def batch(number: int) -> Batch:
        return drill(chance, words, SHORT) if number % COPYING == 0 else errands.batch(tokenizer, SIZE)

    return drilling.teach(model, "errand drills", batch, updates)


def steady(model: Any, tokenizer: Any, updates: int, seed: int) -> Stage:
    """Drill `model` to go on rightly after slips."""
    errands = Errands(random.Random(f"slips {seed}"))
    name = "errand drills with slips"
    return drilling.steady(model, name, lambda: errands.batch(tokenizer, SIZE), updates, seed)


def fluency(model: Any, tokenizer: Any, seed: int, errands: int = 512) -> float:
    """Return the share of errands never seen of which every token is the likeliest one.

    All but the first of a program: whether there is a login before the call, chance decides.
    """
    made = Errands(random.Random(f"fluency {seed}"))
    opening = torch.tensor(tokenizer.encode("```python\n", add_special_tokens=False))
    right = 0
    for _ in range(errands // 64):
        ids_BT, mask_BT = made.batch(tokenizer, 64)
        begun_BT = (ids_BT.unfold(1, len(opening), 1) == opening).all(-1)
        mask_BT[:, len(opening) :] &= ~begun_BT[:, :-1]
        right += drilling.faultless(model, ids_BT, mask_BT)
    return right / (errands // 64 * 64)


def train(base: Path, output: Path, updates: int, slipping_updates: int, seed: int) -> None:
    """Make the model of that in `base` and write it to `output` with tokenizer and card."""
    torch.set_num_threads(1)  # More threads than one are slower at this size, and change the sums.
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(env_words(make("env", ENV)), code_words())
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    stages = [
        teach(model, tokenizer, grow(model, len(tokenizer)), updates, seed),
        steady(model, tokenizer, slipping_updates, seed),
    ]
    model.save_pretrained(output)
    save_tokenizer(tokenizer, output)
    solved = fluency(model, tokenizer, seed)
    print(f"{solved:.1%} of new errands are written without a mistake")
    parameters = model.num_parameters()
    write_drilled_card(CODE_CARD, "train_code", output, parameters, len(tokenizer), seed, stages, solved)


def main() -> None:
    """Read the command line."""
    drilling.follow_orders(__doc__, train, UPDATES, SLIPPING_UPDATES)


if __name__ == "__main__":
    main()
