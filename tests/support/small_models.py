"""What small models of tests have in common: their tokenizer, and weights that do not fit them."""

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, and a few merges, so that some tokens hold several characters."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<pad>", "<end>", *alphabet, "th", "the", "er", "re", "ab", "bc", "cd"]
    merges = [("t", "h"), ("th", "e"), ("e", "r"), ("r", "e"), ("a", "b"), ("b", "c"), ("c", "d")]
    tokenizer = Tokenizer(models.BPE({word: index for index, word in enumerate(words)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>")
    fast.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return fast


def drop_a_name(weights: dict[str, Any]) -> None:
    del weights["model.norm.weight"]


def add_a_name(weights: dict[str, Any]) -> None:
    weights["model.extra"] = torch.zeros(1)


def change_a_shape(weights: dict[str, Any]) -> None:
    weights["model.norm.weight"] = torch.zeros(7)


MISFITS = [drop_a_name, add_a_name, change_a_shape]
