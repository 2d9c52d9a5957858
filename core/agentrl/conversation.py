"""What an agent talks to the model through: tokens in, tokens out.

`say` gives tokens, `ask` samples some, `restart` begins a new segment. The segments hold exactly the ids
that went to the engine and came back; text is made from ids, never the other way round.
"""

from collections.abc import Sequence
from dataclasses import replace

from agentrl.chat import ChatFormat
from agentrl.errors import AgentRLError, ContextFull, TokenBudgetSpent, UsageError
from agentrl.interfaces import Engine
from agentrl.types import Completion, Message, Sampling, Segment, Span


class Conversation:
    """The dialogue of one episode with the model."""

    def __init__(
        self,
        engine: Engine,
        chat: ChatFormat,
        sampling: Sampling,
        session: str,
        max_tokens: int | None = None,
    ) -> None:
        """Begin with nothing said.

        Args:
            engine: samples the tokens.
            chat: renders the messages.
            sampling: `max_tokens` is per `ask`; its seed is the episode's.
            session: names the episode to the engine.
            max_tokens: how many tokens may be sampled in the whole episode; None means no limit.
        """
        self.session = session
        self.segments: list[Segment] = []
        self.turn = 0
        self._engine = engine
        self._chat = chat
        self._sampling = sampling
        self._left = max_tokens
        self._asked = 0
        self._pending: list[Message] = []

    def say(self, *messages: Message) -> None:
        """Give the model messages to read; they are never trained on."""
        self._pending.extend(messages)

    def restart(self, *messages: Message) -> None:
        """Begin anew with `messages` only: for agents that trim or rewrite their context.

        What was sampled before stays in the trajectory, in a segment of its own.
        """
        self._pending = list(messages)
        if self.segments and self.segments[-1].token_ids:
            self.segments.append(Segment())

    async def ask(self, stop: Sequence[str] = (), max_tokens: int | None = None, begin: str = "") -> str:
        """Let the model speak and return its text, without the end-of-turn token.

        Args:
            stop: strings that end the turn; the one that did stays in the text.
            max_tokens: at most this many tokens, and never more than the run's own limit.
            begin: how the turn has to begin: given, not sampled, and part of the text.

        Raises:
            UsageError: nothing new was said since the model last spoke.
            ContextFull: the model's context has no room left.
            TokenBudgetSpent: the episode has used all its tokens.
        """
        segment = self._give(begin)
        sampling = self._sampling_for(segment, tuple(stop), max_tokens)
        completion = await self._generate(segment, sampling)
        self._record(segment, completion)
        return begin + self._text(completion.token_ids)

    async def _generate(self, segment: Segment, sampling: Sampling) -> Completion:
        try:
            return await self._engine.generate(segment.token_ids, sampling, self.session)
        except AgentRLError:
            raise
        except Exception as error:
            raise AgentRLError(f"the engine failed with {type(error).__name__}: {error}") from error

    def _give(self, begin: str) -> Segment:
        """Append the ids of the pending messages and of `begin` to the current segment."""
        if not self._pending:
            raise UsageError("the agent asked twice without saying anything; call conversation.say first")
        if not self.segments:
            self.segments.append(Segment())
        segment = self.segments[-1]
        if segment.token_ids:
            ids = self._chat.continuation(self._pending, segment.token_ids[-1])
        else:
            ids = self._chat.opening(self._pending)
        ids = ids + self._chat.tokenizer.encode(begin, add_special_tokens=False) if begin else ids
        room = self._engine.context_length - len(segment.token_ids) - len(ids)
        if room < 1:
            if not any(each.sampled for each in self.segments):
                raise UsageError(_too_long(len(ids), self._engine.context_length))
            raise ContextFull(f"the context of {self._engine.context_length} tokens is full")
        segment.token_ids.extend(ids)
        self._pending = []
        return segment

    def _sampling_for(self, segment: Segment, stop: tuple[str, ...], wanted: int | None) -> Sampling:
        if self._left is not None and self._left < 1:
            raise TokenBudgetSpent("the episode has sampled all the tokens it was allowed")
        limits = [self._sampling.max_tokens, self._engine.context_length - len(segment.token_ids)]
        limits += [limit for limit in (wanted, self._left) if limit is not None]
        self._asked += 1
        seed = self._sampling.seed + self._asked
        return replace(self._sampling, stop=stop, max_tokens=min(limits), seed=seed)

    def _record(self, segment: Segment, completion: Completion) -> None:
        said = completion.version, completion.temperature
        span = Span(len(segment.token_ids), list(completion.logprobs), self.turn, *said)
        segment.token_ids.extend(completion.token_ids)
        segment.spans.append(span)
        if self._left is not None:
            self._left -= len(completion.token_ids)

    def _text(self, token_ids: list[int]) -> str:
        end = self._chat.tokenizer.eos_token_id
        if token_ids and token_ids[-1] == end:
            token_ids = token_ids[:-1]
        return self._chat.tokenizer.decode(token_ids, skip_special_tokens=False)


def _too_long(tokens: int, context: int) -> str:
    return (
        f"the first prompt has {tokens} tokens but the model's context holds {context}; "
        "shorten the env's observations or choose a model with a longer context"
    )
