"""What an agent talks to the model through: tokens in, tokens out.

`say` gives tokens, `ask` samples some, `restart` begins a new segment. The segments hold exactly the ids
that went to the engine and came back; text is made from ids, never the other way round.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from agentrl.chat import ChatFormat
from agentrl.errors import AgentRLError, ContextFull, TokenBudgetSpent, UsageError
from agentrl.interfaces import Engine
from agentrl.types import Completion, Message, Sampling, Segment


class Conversation:
    """The dialogue of one episode with the model.

    Attributes:
        session: names the episode to the engine.
        segments: the tokens so far.
        turn: of the episode, which spans are marked with.
        sampling: what the run asks of the engine.
        tools: the functions as which the env's actions can be called; they are shown to the model where an
            agent begins with them, see `restart`.
        completion: what the engine sampled last; None before the first time.
    """

    def __init__(
        self,
        engine: Engine,
        chat: ChatFormat,
        sampling: Sampling,
        session: str,
        max_tokens: int | None = None,
        at_work: AbstractContextManager[None] | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Begin with nothing said.

        Args:
            engine: samples the tokens.
            chat: renders the messages.
            sampling: `max_tokens` is per `ask`; its seed is the episode's.
            session: names the episode to the engine.
            max_tokens: how many tokens may be sampled in the whole episode; None means no limit.
            at_work: is entered while the engine is asked.
            tools: of the env.
        """
        self.session = session
        self.segments: list[Segment] = []
        self.turn = 0
        self.completion: Completion | None = None
        self._engine = engine
        self._chat = chat
        self.sampling = sampling
        self._left = max_tokens
        self._at_work = at_work or nullcontext()
        self._asked = 0
        self._pending: list[Message] = []
        self.tools = tools
        self._shown: Sequence[Mapping[str, Any]] = ()
        # What the next segment begins with; None goes on with the last one.
        self._fresh: list[int] | None = []

    @property
    def shows_tools(self) -> bool:
        """Return whether the model's chat template writes tools into the prompt itself."""
        return self._chat.shows_tools

    def say(self, *messages: Message) -> None:
        """Give the model messages to read; they are never trained on."""
        self._pending.extend(messages)

    def restart(
        self, *messages: Message, after: Sequence[int] = (), tools: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Begin anew with `messages` only: for agents that trim or rewrite their context.

        What was sampled before stays in the trajectory, in a segment of its own.

        Args:
            messages: what the model reads.
            after: the beginning of an earlier segment, up to the end of a turn of the model: it comes first,
                token by token, and `messages` continue it. If it is all of the last segment, that goes on.
            tools: functions that the model may call, as chat templates understand them, where nothing comes
                first.
        """
        self._pending = list(messages)
        self._shown = tools
        last = self.segments[-1].token_ids if self.segments else []
        self._fresh = None if after and list(after) == last else list(after)

    async def ask(
        self,
        stop: Sequence[str] = (),
        max_tokens: int | None = None,
        begin: str = "",
        temperature: float | None = None,
    ) -> str:
        """Let the model speak and return its text, without the end-of-turn token.

        Where this raises or is cancelled, the tokens are as if nobody had asked.

        Args:
            stop: strings that end the turn; the one that did stays in the text.
            max_tokens: at most this many tokens, and never more than the run's own limit.
            begin: how the turn has to begin: given, not sampled, and part of the text.
            temperature: in place of the run's; it is recorded, and what is trained is the distribution at it.

        Raises:
            UsageError: nothing new was said since the model last spoke.
            ContextFull: the model's context has no room left.
            TokenBudgetSpent: the episode has used all its tokens.
        """
        given = self._given(begin)
        sampling = self._sampling_for(len(given), tuple(stop), max_tokens)
        if temperature is not None:
            sampling = replace(sampling, temperature=temperature)
        completion = await self._generate(given, sampling)
        self._record(given, completion)
        return begin + self._text(completion.token_ids)

    async def _generate(self, given: Sequence[int], sampling: Sampling) -> Completion:
        try:
            with self._at_work:
                return await self._engine.generate(given, sampling, self.session)
        except AgentRLError:
            raise
        except Exception as error:
            raise AgentRLError(f"the engine failed with {type(error).__name__}: {error}") from error

    def _given(self, begin: str) -> list[int]:
        """Return all ids up to where the model is to speak: what stands there, what is pending, `begin`."""
        if not self._pending:
            raise UsageError("the agent asked twice without saying anything; call conversation.say first")
        before = self.segments[-1].token_ids if self._fresh is None else self._fresh
        if before:
            ids = self._chat.continuation(self._pending, before[-1])
        else:
            ids = self._chat.opening(self._pending, self._shown)
        ids = ids + self._chat.tokenizer.encode(begin, add_special_tokens=False) if begin else ids
        if len(before) + len(ids) >= self._engine.context_length:
            if not any(each.sampled for each in self.segments):
                raise UsageError(_too_long(len(ids), self._engine.context_length))
            raise ContextFull(f"the context of {self._engine.context_length} tokens is full")
        return before + ids

    def _sampling_for(self, given: int, stop: tuple[str, ...], wanted: int | None) -> Sampling:
        if self._left is not None and self._left < 1:
            raise TokenBudgetSpent("the episode has sampled all the tokens it was allowed")
        limits = [self.sampling.max_tokens, self._engine.context_length - given]
        limits += [limit for limit in (wanted, self._left) if limit is not None]
        self._asked += 1
        seed = self.sampling.seed + self._asked
        return replace(self.sampling, stop=stop, max_tokens=min(limits), seed=seed)

    def _record(self, given: list[int], completion: Completion) -> None:
        """Take the given ids, and the sampled ones behind them, into the segment they belong to."""
        if self._fresh is not None:
            self.segments.append(Segment())
        segment = self.segments[-1]
        segment.token_ids[:] = [*given, *completion.token_ids]
        segment.spans += completion.spans(len(given), self.turn)
        self.completion = completion
        self._pending, self._fresh = [], None
        if self._left is not None:
            self._left -= len(completion.token_ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of some tokens, for who has to show them one by one."""
        return self._chat.tokenizer.decode(token_ids, skip_special_tokens=False)

    def _text(self, token_ids: list[int]) -> str:
        end = self._chat.tokenizer.eos_token_id
        if token_ids and token_ids[-1] == end:
            token_ids = token_ids[:-1]
        return self.decode(token_ids)


def _too_long(tokens: int, context: int) -> str:
    return (
        f"the first prompt has {tokens} tokens but the model's context holds {context}; "
        "shorten the env's observations or choose a model with a longer context"
    )
