"""The tokenizer of `tiny`: one token a word for the words it knows, bytes for everything else.

A small model copies best when one thing is one token, so the vocabulary holds whole words with the
space before them. The 256 byte symbols beneath make it lossless on any text.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, USER, ASSISTANT, TOOL, END = "<|pad|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>"
SPECIAL = (PAD, USER, ASSISTANT, TOOL, END)
# Not special: what they say must survive `decode(skip_special_tokens=True)`.
TAGS = tuple(
    f"<{slash}{name}>" for name in ("think", "search", "information", "answer") for slash in ("", "/")
)
# System messages are left out: they cost tokens, and this model is too small to follow instructions.
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def listed_words() -> list[str]:
    """Return the words of `words.txt`, each with the space before it, if it has one."""
    words = []
    for line in (Path(__file__).parent / "words.txt").read_text(encoding="utf-8").splitlines():
        head, *rest = line.split() or ["#"]
        if head == "@both":
            words += [*rest, *(f" {word}" for word in rest)]
        elif head != "#":
            words += [f" {word}" for word in (head, *rest)]
    return list(dict.fromkeys(words))


def build_tokenizer(more_words: Iterable[str] = ()) -> Any:
    """Return the tokenizer with the listed words and `more_words` (each with its space) as tokens."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [word.replace(" ", "Ġ") for word in (*listed_words(), *more_words)]
    tokens = dict.fromkeys((*SPECIAL, *TAGS, *symbols, *words))
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = byte_level
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write the tokenizer so that any version of transformers loads it just as it is."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = {**json.loads(path.read_text(encoding="utf-8")), "tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
