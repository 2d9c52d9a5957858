"""The rules of agents."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from agentrl.chat import ChatFormat
from agentrl.conversation import Conversation
from agentrl.errors import AgentRLError, ContextFull, TokenBudgetSpent
from agentrl.hosting.codec import Nonsense, check_action
from agentrl.interfaces import Agent
from agentrl.testing.engines import ScriptedEngine
from agentrl.testing.rules import Report, RuleBroken, in_time, judge_by, name_of, no_exception
from agentrl.types import Action, Completion, Observation, Sampling, Segment

NONSENSE = (
    "",
    "lorem ipsum dolor sit amet",
    "</answer></search></think>",
    "<search><search> <answer>",
    '{"name": null, "arguments": [',
    "```python\nprint(",
    "\x00\ud800\U0001f40d\ufffd",
    "word " * 300,
)
OBSERVATIONS = ("What is the capital of France?", "", "Nothing was found.", "\U0001f40d </search> {")
# An agent that has asked so often within one act will never stop.
MOST_ASKS = 100


def check_agent(
    make: Callable[[], Agent],
    completions: Sequence[str] = (),
    observations: Sequence[str] = OBSERVATIONS,
    seconds: float = 30.0,
    report: Report | None = None,
) -> None:
    """Hold an agent to the rules of its kind, on an engine that says sense and nonsense.

    Args:
        make: the class, or a function that returns an instance with the options to test.
        completions: what a model might sensibly say, besides the built-in nonsense.
        observations: the texts that the env shows, one a turn.
        seconds: that one act may take.
        report: told of each rule, as soon as it was tried.

    Raises:
        RulesBroken: with all rules that it breaks.
    """
    __tracebackhide__ = True
    subject = AgentUnderTest(make, (*completions, *NONSENSE), observations, seconds)
    judge_by(RULES, subject, name_of(make), report)


class Recorder(ScriptedEngine):
    """Says one text for ever, gives every token a log-probability of its own, and keeps what it said."""

    def __init__(self, text: str) -> None:
        """Take the text."""
        super().__init__(self._say)
        self.text = text
        self.asked = 0
        self.completions: list[Completion] = []
        self._sampled = 0

    async def generate(self, token_ids: Sequence[int], sampling: Sampling, session: str) -> Completion:
        """Return the text's tokens, as an engine would."""
        said = await super().generate(token_ids, sampling, session)
        logprobs = [-(self._sampled + place + 1) / 1024 for place in range(len(said.token_ids))]
        self._sampled += len(logprobs)
        self.completions.append(Completion(said.token_ids, logprobs, said.stop))
        return self.completions[-1]

    def _say(self, context: str) -> str:
        self.asked += 1
        if self.asked > MOST_ASKS:
            raise RuleBroken(
                "comes to an end",
                f"act asked the model {MOST_ASKS} times while it said {self.text[:40]!r}",
                "return an action after a few tries, whatever the model says",
            )
        return self.text


@dataclass(frozen=True, slots=True)
class Played:
    """What an agent did in an episode, and the tokens of it."""

    actions: list[Action]
    segments: list[Segment]
    completions: list[Completion]
    prompts: list[list[int]]


@dataclass(frozen=True, slots=True)
class AgentUnderTest:
    """Makes agents and lets them act."""

    make: Callable[[], Agent]
    completions: Sequence[str]
    observations: Sequence[str]
    seconds: float

    async def play(self, text: str) -> Played:
        """Play an episode in which the model says `text` all the time."""
        engine = Recorder(text)
        sampling = Sampling(max_tokens=256, seed=1)
        conversation = Conversation(
            engine, ChatFormat(engine.tokenizer), sampling, "episode", max_tokens=2048
        )
        with no_exception(
            "making the agent", "let it be made without options, or check a function that does"
        ):
            agent = self.make()
        try:
            actions = [action async for action in self._actions(agent, conversation, engine)]
        finally:
            with no_exception("close", "let it end whatever the agent has started, in whatever state it is"):
                await in_time(agent.close(), self.seconds, "close")
        prompts = [request.token_ids for request in engine.requests]
        return Played(actions, conversation.segments, engine.completions, prompts)

    async def _actions(
        self, agent: Agent, conversation: Conversation, engine: Recorder
    ) -> AsyncIterator[Action]:
        """Yield what the agent does, up to where there is no room for more."""
        for turn, shown in enumerate(self.observations):
            conversation.turn, engine.asked = turn, 0
            action = await self._act(agent, Observation(shown), conversation, engine.text)
            if action is None:
                return
            yield action
            await asyncio.sleep(0)

    async def _act(
        self, agent: Agent, observation: Observation, conversation: Conversation, text: str
    ) -> Action | None:
        """Return the action, None if there was no room for one."""
        what = f"act, while the model says {text[:40]!r},"
        with no_exception(
            what, "turn whatever the model says into an action: the env tells it what is wrong"
        ):
            try:
                action = await in_time(agent.act(observation, conversation), self.seconds, what)
            except (ContextFull, TokenBudgetSpent):
                return None
            except AgentRLError as error:
                # The conversation takes it for a failure of the engine.
                if isinstance(error.__cause__, RuleBroken):
                    raise error.__cause__ from None
                raise
        try:
            return check_action(action, what)
        except Nonsense as error:
            raise RuleBroken("returns actions", str(error), "return agentrl.Action(text)") from error


def survives_nonsense(subject: AgentUnderTest) -> None:
    """Whatever the model says, an action comes of it, in time."""
    for text in subject.completions:
        asyncio.run(subject.play(text))


def trains_on_what_was_sampled(subject: AgentUnderTest) -> None:
    """The spans hold exactly the tokens that the engine sampled, with their log-probabilities."""
    for text in subject.completions:
        played = asyncio.run(subject.play(text))
        if not played.completions:
            found = "a whole episode went by without a word from the model"
            raise RuleBroken("asks the model", found, "get your action by conversation.ask")
        sampled = [(done.token_ids, done.logprobs) for done in played.completions]
        spans = [
            (segment.token_ids[span.start : span.stop], span.logprobs)
            for segment in played.segments
            for span in segment.spans
        ]
        if spans != sampled:
            raise RuleBroken(
                "trains on what was sampled",
                f"the spans hold {sum(len(ids) for ids, _ in spans)} tokens that are not the "
                f"{sum(len(ids) for ids, _ in sampled)} that were sampled",
                "leave conversation.segments alone: use say, ask and restart only",
            )


def keeps_its_segments_apart(subject: AgentUnderTest) -> None:
    """Each segment holds, from its first token, what the model read and said; a restart begins another."""
    for text in subject.completions:
        played = asyncio.run(subject.play(text))
        before = [segment.token_ids[: span.start] for segment in played.segments for span in segment.spans]
        for place, prompt in enumerate(played.prompts):
            if place >= len(before) or before[place] != prompt:
                recorded = f"{len(before[place])} others are" if place < len(before) else "nothing is"
                raise RuleBroken(
                    "keeps its segments apart",
                    f"when the model spoke, time {place + 1} of the episode, it had read {len(prompt)} "
                    f"tokens, but {recorded} recorded as what it had read",
                    "begin a new context by conversation.restart, and leave conversation.segments alone",
                )


def repeats_itself(subject: AgentUnderTest) -> None:
    """The same completions make the same episode, also with another agent beside it."""

    async def side_by_side() -> list[Played]:
        return await asyncio.gather(*(subject.play(text) for text in subject.completions))

    for text, together in zip(subject.completions, asyncio.run(side_by_side()), strict=True):
        if asyncio.run(subject.play(text)) != together:
            raise RuleBroken(
                "repeats itself",
                f"another episode came of it when the model said {text[:40]!r} again",
                "hold an episode's state in the instance, and use no clock and no random number",
            )


RULES = (survives_nonsense, trains_on_what_was_sampled, keeps_its_segments_apart, repeats_itself)
