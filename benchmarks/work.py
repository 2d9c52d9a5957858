"""The work that `rollout.py` and `update.py` give to both sides, and what they report about it.

An episode begins with a prompt that its group shares; then come `turns` times `new_tokens` sampled tokens,
with an observation between two turns. The model's weights are random and no token ends a turn, so every
trajectory of both sides has exactly the same shape. Every letter of a text is one token.
"""

import random
import time
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase
from typing import TypedDict

VOCABULARY = 1024
# What `write_model` is told for a model of ten million weights.
TEN_MILLION = {
    "hidden_size": 384,
    "intermediate_size": 1280,
    "num_hidden_layers": 5,
    "num_attention_heads": 6,
}
_PAD, _USER, _ASSISTANT, _END = "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"
# Its id is the first that the model does not have: nothing that is sampled ever ends a turn.
_NEVER = "<|never|>"
_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Work:
    """The shapes of a step, in tokens, and what it may use.

    `observation` counts all that stands between two turns and `prompt` all before the first, the chat
    template's own tokens included.
    """

    prompt: int
    groups: int
    threads: int
    group_size: int = 8
    turns: int = 6
    new_tokens: int = 32
    observation: int = 100

    @property
    def trajectories(self) -> int:
        """Return how many trajectories a step has."""
        return self.groups * self.group_size

    @property
    def length(self) -> int:
        """Return how many tokens a trajectory has."""
        return self.prompt + self.turns * self.new_tokens + (self.turns - 1) * self.observation

    @property
    def sampled(self) -> int:
        """Return how many tokens a step samples and trains."""
        return self.trajectories * self.turns * self.new_tokens

    @property
    def unique(self) -> int:
        """Return how many tokens a step has if the prompt of a group counts once."""
        return self.groups * self.prompt + self.trajectories * (self.length - self.prompt)

    def prompt_text(self, seed: int) -> str:
        """Return the letters of a first observation: `prompt` tokens once it is a message to answer."""
        return _letters(self.prompt - 3, f"prompt {seed}")

    def observation_text(self, seed: int, turn: int) -> str:
        """Return the letters of a later observation: `observation` tokens from one turn to the next."""
        return _letters(self.observation - 4, f"observation {seed} {turn}")


class Seconds(TypedDict):
    """What a phase took: by the clock on the wall, and of all processor cores together."""

    wall: float
    cpu: float


class Measurement(TypedDict):
    """One step of one side, and facts to compare; `update` and `loss` are None if it was a rollout only."""

    rollout: Seconds
    update: Seconds | None
    trained: int
    loss: float | None
    peak_mb: float


class Stopwatch:
    """Counts from when it is made, or from the last lap."""

    def __init__(self) -> None:
        """Start."""
        self.lap()

    def lap(self) -> Seconds:
        """Return what went by, and start again."""
        wall, cpu = time.perf_counter(), time.process_time()
        before = getattr(self, "_before", (wall, cpu))
        self._before = wall, cpu
        return Seconds(wall=wall - before[0], cpu=cpu - before[1])


def write_model(folder: Path, **sizes: int) -> int:
    """Write a model of random weights, with tokenizer, and return how many they are.

    About 1.25 million, unless `sizes` of `Qwen2Config` say otherwise.
    """
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.manual_seed(0)
    usual = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    config = Qwen2Config(
        **(usual | sizes),
        vocab_size=VOCABULARY,
        max_position_embeddings=8192,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    model = Qwen2ForCausalLM(config)
    model.save_pretrained(folder)
    _save_tokenizer(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def _save_tokenizer(folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = [_PAD, _USER, _ASSISTANT, _END]
    # Byte-level and without merges, which is what transformers can load as the tokenizer of a Qwen2.
    symbols = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    symbols += [f"unused{index}" for index in range(len(symbols), VOCABULARY)]
    ids = {token: index for index, token in enumerate([*symbols, _NEVER])}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in [*special, _NEVER]])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=_PAD, eos_token=_NEVER, chat_template=_TEMPLATE
    ).save_pretrained(folder)


def _letters(count: int, seed: str) -> str:
    return "".join(random.Random(seed).choices(ascii_lowercase, k=count))


def peak_mb() -> float:
    """Return the largest resident memory this process has had so far."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
