"""Turns chat messages into tokens once, and never again.

A conversation only ever grows: what follows the model's turn is rendered alone and appended, so the ids
that were sampled stay as they are, even where the chat template would rewrite them (strip the
reasoning of earlier turns, say). Our own, because the library for this (`renderers`) renders known
model families only, and re-tokenises the history of all others.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from agentrl.errors import UsageError
from agentrl.interfaces import Tokenizer
from agentrl.types import Message

# Stands for the text of the model's last turn, to find where a template continues after it.
_MARK = "@@agentrl-turn@@"
# A function that no template has heard of, to find out whether it shows functions at all.
_PROBE_NAME = "agentrl_probe"
_PROBE = {"name": _PROBE_NAME, "description": "", "parameters": {"type": "object", "properties": {}}}


class ChatFormat:
    """The chat template of one tokenizer, applied piece by piece."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Take a tokenizer that has a chat template."""
        self.tokenizer = tokenizer

    @cached_property
    def shows_tools(self) -> bool:
        """Return whether the template writes functions that the model may call into the prompt."""
        try:
            text = self._render([Message("user", "?")], [{"type": "function", "function": _PROBE}])
        except UsageError:
            return False
        return _PROBE_NAME in text

    def opening(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """Return the ids that begin a conversation, up to where the model is to speak."""
        return self._encode(self._render(messages, tools))

    def continuation(self, messages: Sequence[Message], last_sampled: int) -> list[int]:
        """Return the ids that close the model's turn and lead over `messages` to its next one.

        `last_sampled` is the id that ended the model's turn: if the model has closed the turn itself,
        it is not closed twice.

        Raises:
            UsageError: the template drops or rewrites the model's last turn.
        """
        end = self.tokenizer.eos_token_id
        closing = self._after_mark(messages)
        if end is not None and last_sampled == end:
            closing = closing.removeprefix(self.tokenizer.decode([end], skip_special_tokens=False))
        return self._encode(closing)

    def _after_mark(self, messages: Sequence[Message]) -> str:
        turn = [Message("user", "?"), Message("assistant", _MARK)]
        _, mark, after = self._render([*turn, *messages]).rpartition(_MARK)
        if not mark:
            raise UsageError(
                "the model's chat template leaves out the assistant's last turn, so a conversation cannot be "
                "continued token by token; use a model whose template keeps it"
            )
        return after

    def _render(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> str:
        chat = [{"role": each.role, "content": each.content, **each.more} for each in messages]
        more = {"tools": list(tools)} if tools else {}
        try:
            text = self.tokenizer.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=True, **more
            )
        except Exception as error:  # templates raise their own errors, such as "roles must alternate"
            roles = ", ".join(message.role for message in messages)
            raise UsageError(f"the model's chat template refuses the messages ({roles}): {error}") from error
        return str(text)

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)
