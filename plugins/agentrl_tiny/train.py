"""Make the model `tiny` from nothing, on one CPU thread of a quiet machine in about a quarter of an hour.

    python -m agentrl_tiny.train --output FOLDER

First copying drills, until the model looks things up reliably; then a few demonstrations of the env
`deepsearch`, stopped as soon as it plays well enough to be rewarded now and then. The rest is left to
reinforcement learning. Same seed, same thread count, same library versions: same model.
"""

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from agentrl.plugins import make

from .card import Stage, write_card
from .demonstrations import batch
from .drills import LONG, SHORT, Words, drill
from .learner import Learner
from .play import success_rate
from .tokenizer import build_tokenizer, save_tokenizer
from .vocabulary import env_words, words_of

ENV = "deepsearch"
# Hops of the demonstrated questions; two are shown most, three so that the pattern generalises.
DEMONSTRATED = (1, 2, 2, 3)
# The mean accuracy at which short drills have done their work, and how many long ones follow.
FLUENT, LONG_UPDATES = 0.93, 1500
IMITATION_RATE, PROBED = 5e-4, 256


def make_model(tokenizer: Any) -> Any:
    """Return the untrained model.

    Llama's shape, because every engine knows it. Not Qwen2's: transformers 5 replaces whatever tokenizer
    lies beside a Qwen2 model by Qwen2's own rules.
    """
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config)


def drill_until_fluent(model: Any, words: Words, seed: int) -> Stage:
    """Teach `model` to copy: short tables until it does so fluently, then long ones as well."""
    chance, learner = random.Random(seed), Learner(Stage("copying drills"), model)
    for shape, rate in drill_schedule(chance, learner.stage):
        learner.update(*drill(chance, words, shape), rate)
        if learner.stage.updates % 100 == 0:
            print(learner.stage, flush=True)
    return learner.stage


def drill_schedule(chance: random.Random, stage: Stage) -> Iterator[tuple[Any, float]]:
    """Yield the shape and learning rate of each drill."""
    while stage.accuracy <= FLUENT:
        yield SHORT, 1e-3 * min(1.0, (stage.updates + 1) / 50)
    for number in range(LONG_UPDATES):
        rate = 1e-3 * max(0.1, 1 - 0.9 * number / LONG_UPDATES)
        yield (SHORT if chance.random() < 0.2 else LONG), rate


def imitate_until(model: Any, tokenizer: Any, target: float, seed: int) -> Stage:
    """Show `model` demonstrations until it solves the share `target` of unseen tasks by itself."""
    chance, learner = random.Random(seed), Learner(Stage("demonstrations", smoothing=0.8), model)
    demonstrated = [make("env", ENV, {"hops": [hops]}) for hops in DEMONSTRATED]
    env, solved = make("env", ENV), 0.0
    while solved < target:
        for _ in range(4):
            rate = IMITATION_RATE * min(1.0, (learner.stage.updates + 1) / 10)
            learner.update(*batch(chance, tokenizer, demonstrated, 24), rate)
        # Below that accuracy hardly an episode succeeds, and failing ones take long.
        if learner.stage.accuracy > 0.9:
            solved = success_rate(model, tokenizer, env, env.tasks("dev")[:PROBED], seed)
            print(f"{learner.stage}, solves {solved:.1%} of unseen tasks", flush=True)
    return learner.stage


def measure(model: Any, tokenizer: Any, seed: int) -> dict[str, float]:
    """Return the success on the test split, by kind of question and sampling, as the card has it."""
    results = {}
    for hops, temperature, episodes in (
        ((1, 2), 1.0, 1024), ((1, 2), 0.0, 512), ((1,), 1.0, 512), ((2,), 1.0, 512), ((3,), 1.0, 512),
    ):  # fmt: skip
        env = make("env", ENV, {"hops": hops})
        questions = f"{' or '.join(map(str, hops))} hop{'s' if hops != (1,) else ''}"
        cells = f"{questions} | temperature {temperature:g} | {episodes:,}"
        tasks = env.tasks("test")[:episodes]
        results[cells] = success_rate(model, tokenizer, env, tasks, seed, temperature)
        print(cells, f"| {results[cells]:.1%}", flush=True)
    return results


def drilled(folder: Path | None, words: Words, tokenizer: Any, seed: int) -> tuple[Any, Stage]:
    """Return a drilled model: the one in `folder`, or a new one, which is then kept there."""
    if folder and (folder / "stage.json").is_file():
        stage = Stage(**json.loads((folder / "stage.json").read_text(encoding="utf-8")))
        return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32), stage
    torch.manual_seed(seed)
    model = make_model(tokenizer)
    stage = drill_until_fluent(model, words, seed)
    if folder:
        model.save_pretrained(folder)
        (folder / "stage.json").write_text(json.dumps(asdict(stage)), encoding="utf-8")
    return model, stage


def train(output: Path, drills: Path | None, target: float, seed: int) -> None:
    """Make the model and write it to `output` with tokenizer and card."""
    torch.set_num_threads(1)  # More threads than one are slower at this size, and change the sums.
    env = make("env", ENV)
    tokenizer = build_tokenizer(env_words(env))
    model, first = drilled(drills, words_of(tokenizer, env), tokenizer, seed)
    second = imitate_until(model, tokenizer, target, seed)
    model.save_pretrained(output)
    save_tokenizer(tokenizer, output)
    results = measure(model, tokenizer, seed)
    write_card(output, model.num_parameters(), len(tokenizer), seed, [first, second], results)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the model")
    parser.add_argument("--drills", type=Path, help="keep the drilled model here, or begin from it")
    parser.add_argument("--target", type=float, default=0.4, help="success at which imitation stops")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    train(options.output, options.drills, options.target, options.seed)


if __name__ == "__main__":
    main()
