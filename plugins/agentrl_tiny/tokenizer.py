"""The tokenizer of `tiny`: one token a word for the words it knows, bytes for everything else.

A small model copies best when one thing is one token, so the vocabulary holds whole words with the
space before them. The 256 byte symbols beneath make it lossless on any text.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
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
# Before a line of code that is indented by four, eight or twelve; the last space belongs to what follows.
INDENTS = tuple("\n" + " " * (width - 1) for width in (4, 8, 12))
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def listed_words() -> list[str]:
    """Return the words of `words.txt`, each with the space before it, if it has one."""
    return _spaced(_lines("words.txt"))


def code_words() -> list[str]:
    """Return the words and marks of `code_words.txt`, and what code has besides: indents, two digits."""
    return [*_spaced(_lines("code_words.txt")), *INDENTS, *(f"{number:02d}" for number in range(100))]


def group(name: str) -> list[str]:
    """Return the words of a group of `code_words.txt`, such as "things", as they stand there."""
    return [word for kind, words in _lines("code_words.txt") if kind == f"@{name}" for word in words]


def words_in(file: str) -> list[str]:
    """Return all words of a file, as they stand there."""
    return [word for _, words in _lines(file) for word in words]


def _lines(file: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the groups of a file of words: their kind, "@spaced" if nothing is said, and the words."""
    for line in (Path(__file__).parent / file).read_text(encoding="utf-8").splitlines():
        words = line.split()
        if words and words[0].startswith("@"):
            yield words[0], words[1:]
        elif words and words[0] != "#":
            yield "@spaced", words


def _spaced(groups: Iterable[tuple[str, list[str]]]) -> list[str]:
    """Return words without and with a space before them, as their kind wants it."""
    found: list[str] = []
    for kind, words in groups:
        found += words if kind != "@spaced" else []
        found += [f" {word}" for word in words] if kind != "@plain" else []
        found += [f" {word.title()}" for word in words] if kind in ("@first", "@last") else []
    return list(dict.fromkeys(found))


def build_tokenizer(more_words: Iterable[str] = (), last_words: Iterable[str] = ()) -> Any:
    """Return the tokenizer with words as tokens: listed ones, `more_words`, and behind all `last_words`.

    Words are given with the space before them, if they have one.
    """
    words = (*listed_words(), *more_words, *last_words)
    return assemble(words, pre_tokenizers.ByteLevel(add_prefix_space=False), TAGS)


def assemble(words: Iterable[str], pieces: Any, tags: Sequence[str] = ()) -> Any:
    """Return a tokenizer: special tokens and `tags`, bytes, then `words`.

    Args:
        words: ASCII texts that are one token each.
        pieces: the pre-tokenizer, which says what is looked up as a whole.
        tags: tokens that are found anywhere, and may be sampled.
    """
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = dict.fromkeys((*SPECIAL, *tags, *symbols, *map(as_symbols, words)))
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pieces
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in tags])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )


def as_symbols(text: str) -> str:
    """Return an ASCII text as the symbols that stand for its bytes."""
    return text.replace(" ", "Ġ").replace("\n", "Ċ").replace("\t", "ĉ")


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write the tokenizer so that any version of transformers loads it just as it is."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = {**json.loads(path.read_text(encoding="utf-8")), "tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
