"""Make the model `tiny_code` of `tiny`: it knows the words of code and errands, and how to pass details on.

    python -m agentrl_tiny.train_code --output FOLDER

The words of `code_words.txt` become tokens behind all others; then come errand drills, with copying drills of
the new words between them; then errand drills in which it finds slips in what it has written, and goes on as
if they were not there. A model that has never seen a slip of its own writes nonsense from there on, and in
reinforcement learning that nonsense drowns the one token that was to blame.

It sees no env in which errands are run: those are learnt by imitating the env's own demonstrations, and by
reinforcement learning. Same seed, thread count and library versions: same model.
"""

import argparse
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM

from agentrl.plugins import make

from .card import Stage, write_code_card
from .drills import SHORT, drill
from .errands import Errands
from .learner import Learner
from .tokenizer import build_tokenizer, code_words, save_tokenizer
from .train import ENV
from .vocabulary import env_words, words_of

UPDATES, RATE, SIZE = 6000, 1e-3, 24
# One update in so many is a copying drill.
COPYING = 4
# Afterwards, this share of what it has written is replaced by any token.
SLIPPING_UPDATES, SLIPPING_RATE, SLIPS = 1500, 5e-4, 0.05


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
    errands, learner = Errands(chance), Learner(Stage("errand drills"), model)
    words = replace(words_of(tokenizer, make("env", ENV)), words=list(range(first, len(tokenizer))))
    for number in range(updates):
        rate = RATE * min(1.0, (number + 1) / 50, max(0.05, 2 * (1 - number / updates)))
        if number % COPYING == 0:
            learner.update(*drill(chance, words, SHORT), rate)
        else:
            learner.update(*errands.batch(tokenizer, SIZE), rate)
        if number % 100 == 99:
            print(learner.stage, flush=True)
    return learner.stage


def steady(model: Any, tokenizer: Any, updates: int, seed: int) -> Stage:
    """Drill `model` to go on rightly after slips: what it is to say is right, what it sees it said is not."""
    errands, slips = Errands(random.Random(f"slips {seed}")), torch.Generator().manual_seed(seed)
    learner = Learner(Stage("errand drills with slips"), model)
    for number in range(updates):
        ids_BT, mask_BT = errands.batch(tokenizer, SIZE)
        slipped_BT = mask_BT & (torch.rand(ids_BT.shape, generator=slips) < SLIPS)
        any_BT = torch.randint(len(tokenizer), ids_BT.shape, generator=slips)
        rate = SLIPPING_RATE * (1 - number / updates)
        learner.update(ids_BT, mask_BT, rate, torch.where(slipped_BT, any_BT, ids_BT))
        if number % 100 == 99:
            print(learner.stage, flush=True)
    return learner.stage


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
        with torch.no_grad():
            guessed_BT = model(ids_BT).logits[:, :-1].argmax(-1)
        right += int(((guessed_BT == ids_BT[:, 1:]) | ~mask_BT[:, 1:]).all(1).sum())
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
    write_code_card(output, model.num_parameters(), len(tokenizer), seed, stages, solved)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the model")
    parser.add_argument("--base", type=Path, default=Path(__file__).parent / "checkpoint")
    parser.add_argument("--updates", type=int, default=UPDATES)
    parser.add_argument("--slipping-updates", type=int, default=SLIPPING_UPDATES)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    train(options.base, options.output, options.updates, options.slipping_updates, options.seed)


if __name__ == "__main__":
    main()
