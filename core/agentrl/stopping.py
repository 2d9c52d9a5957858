"""Tells when a completion is over: at the end-of-turn token, or when a stop string is complete.

It is what `Sampling.stop` promises, in one place for all engines that see their tokens one by one.
"""

from collections.abc import Collection, Sequence

from agentrl.interfaces import Tokenizer

# What tokenizers decode an incomplete UTF-8 sequence to.
_INCOMPLETE = "\ufffd"


class StopRule:
    """The end-of-turn tokens of a model, and a quick look for stop strings."""

    def __init__(self, tokenizer: Tokenizer, end_ids: Collection[int]) -> None:
        """Take the ids that end a turn."""
        self._tokenizer = tokenizer
        self._end_ids = frozenset(end_ids)
        self._texts: dict[int, str] = {}

    def applies(self, sampled: Sequence[int], stop: Sequence[str]) -> bool:
        """Return whether the last of the `sampled` ids ends the turn or completes a string of `stop`."""
        return sampled[-1] in self._end_ids or any(self._completes(sampled, string) for string in stop)

    def _completes(self, sampled: Sequence[int], string: str) -> bool:
        if not string:
            return False
        text = self._text(sampled[-1])
        # A token alone may decode without its blank, or to an incomplete character: then look closer.
        if string[-1] not in text and _INCOMPLETE not in text and not string[-1].isspace():
            return False
        # A token holds a byte at least, but special cases exist: a few more cost nothing.
        tail = list(sampled[-(len(string.encode()) + 8) :])
        return string in self._tokenizer.decode(tail, skip_special_tokens=False)

    def _text(self, token_id: int) -> str:
        text = self._texts.get(token_id)
        if text is None:
            text = self._texts[token_id] = self._tokenizer.decode([token_id], skip_special_tokens=False)
        return text
