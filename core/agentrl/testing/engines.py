"""Model-free stand-ins for an engine and a tokenizer, for tests that need no model.

`ScriptedEngine` says what a test tells it to say, in tokens, exactly as a real engine would: ids,
log-probabilities, stop strings, token limits, weight versions. `ByteTokenizer` makes tokens of text without
any dependency.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrl.errors import AgentRLError
from agentrl.interfaces import Engine, Resources, Tokenizer, Weights
from agentrl.types import Completion, Sampling

# What a script is: texts that every session hears from the first on, or an answer to any context.
Script = Sequence[str] | Callable[[str], str]


class ByteTokenizer:
    """One token a byte, and a few special tokens for a chat template."""

    specials: Mapping[str, int] = {
        "<|end|>": 256,
        "<|system|>": 257,
        "<|user|>": 258,
        "<|assistant|>": 259,
        "<|tool|>": 260,
    }
    eos_token_id: int | None = 256
    vocab_size = 261

    def __init__(self) -> None:
        """Prepare the search for special tokens in a text."""
        self._texts = {index: text.encode() for text, index in self.specials.items()}
        self._pattern = re.compile("(" + "|".join(map(re.escape, self.specials)) + ")")

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """Return the ids of `text`; special tokens written out in it become their single id."""
        ids: list[int] = []
        for piece in self._pattern.split(text):
            special = self.specials.get(piece)
            ids += piece.encode("utf-8", "replace") if special is None else [special]
        return ids

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """Return the text of `token_ids`; bytes that are no UTF-8 become the replacement character."""
        special = {} if skip_special_tokens else self._texts
        pieces = [bytes([index]) if index < 256 else special.get(index, b"") for index in token_ids]
        return b"".join(pieces).decode("utf-8", "replace")

    def apply_chat_template(
        self, conversation: list[dict[str, Any]], *, tokenize: bool, add_generation_prompt: bool, **more: Any
    ) -> Any:
        """Return the conversation as text, or as ids if `tokenize`; `more` is not shown."""
        turns = [f"<|{message['role']}|>\n{message['content']}<|end|>\n" for message in conversation]
        text = "".join(turns) + ("<|assistant|>\n" if add_generation_prompt else "")
        return self.encode(text) if tokenize else text


@dataclass(frozen=True, slots=True)
class Request:
    """What a `ScriptedEngine` was asked."""

    token_ids: list[int]
    sampling: Sampling
    session: str


class ScriptedEngine(Engine):
    """Generates what a script says, each token with log-probability 0.

    Attributes:
        requests: every call of `generate`, in order.
        version: of the weights, as `load_weights` last set it.
    """

    def __init__(
        self, script: Script, tokenizer: Tokenizer | None = None, context_length: int = 16384
    ) -> None:
        """Take what to say.

        Args:
            script: texts that each session hears one after the other, or a function from the text of
                the whole context to the answer.
            tokenizer: a `ByteTokenizer` if None.
            context_length: tokens.
        """
        super().__init__()
        self.tokenizer = ByteTokenizer() if tokenizer is None else tokenizer
        self.context_length = context_length
        self.requests: list[Request] = []
        self.version = 0
        self._script = script
        self._said: dict[str, int] = {}

    async def start(self, model: Path | str, resources: Resources) -> None:
        """Load nothing."""

    async def generate(self, token_ids: Sequence[int], sampling: Sampling, session: str) -> Completion:
        """Return the tokens of the script's next text, cut at a stop string or at `max_tokens`.

        Raises:
            AgentRLError: the session has heard all texts of the script.
        """
        self.requests.append(Request(list(token_ids), sampling, session))
        text, stopped = _cut(self._next(token_ids, session), sampling.stop)
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        end = self.tokenizer.eos_token_id
        if not stopped and end is not None and ids[-1:] != [end]:
            ids.append(end)
        if len(ids) > sampling.max_tokens:
            ids = ids[: sampling.max_tokens]
            return Completion(ids, [0.0] * len(ids), "length", self.version)
        return Completion(ids, [0.0] * len(ids), "stop", self.version)

    def release(self, session: str) -> None:
        """Let `session` hear the script from its beginning again."""
        self._said.pop(session, None)

    async def load_weights(self, weights: Weights, version: int) -> None:
        """Note the version and ignore the weights."""
        self.version = version

    def _next(self, token_ids: Sequence[int], session: str) -> str:
        if callable(self._script):
            return self._script(self.tokenizer.decode(token_ids, skip_special_tokens=False))
        index = self._said.get(session, 0)
        if index >= len(self._script):
            raise AgentRLError(
                f"the script of {len(self._script)} texts is over, but session {session!r} asks for another; "
                "add texts to the script or let the episode end earlier"
            )
        self._said[session] = index + 1
        return self._script[index]


def _cut(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """Return `text` up to the end of the first stop string, and whether there was one."""
    ends = [text.index(mark) + len(mark) for mark in stop if mark and mark in text]
    return (text[: min(ends)], True) if ends else (text, False)
