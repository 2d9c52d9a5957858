"""An agent that thinks, searches and answers in tags, by the convention of Search-R1 (arXiv 2503.09516).

The model writes `<think>`, then `<search>` or `<answer>`; what the search finds comes back as
a user's message in `<information>`. Parsing is the env's business: the agent only names what it did.
"""

from pydantic import Field

from agentrl.conversation import Conversation
from agentrl.interfaces import Agent, PluginConfig
from agentrl.text import last_tag, normalize_answer
from agentrl.types import Action, Observation, system, user

INSTRUCTIONS = (
    "Answer the question. Think inside <think> and </think> first, every time you get new information. "
    "If you lack knowledge, search with <search> query</search>: what is found comes back between "
    "<information> and </information>. Search as often as you need. When you know the answer, give it "
    "inside <answer> and </answer> without explanation, for example <answer> Beijing</answer>."
)


class Search(Agent):
    """Search and answer in tags."""

    class Config(PluginConfig):
        """Options."""

        instructions: str = Field(default=INSTRUCTIONS, description="the system message; empty says nothing")
        closed_book: bool = Field(default=False, description="answer from memory, without a search")

    config: Config

    async def act(self, observation: Observation, conversation: Conversation) -> Action:
        """Show the observation and let the model write up to the end of a search or an answer."""
        if not conversation.segments and self.config.instructions:
            conversation.say(system(self.config.instructions))
        conversation.say(user(observation.text))
        if self.config.closed_book:
            text = await conversation.ask(stop=("</answer>",), begin="<answer>")
        else:
            text = await conversation.ask(stop=("</search>", "</answer>"))
        return Action(text, key_of(text))


def key_of(text: str) -> str | None:
    """Return the canonical form of what `text` does, None if it does nothing."""
    tag = last_tag(text, ("search", "answer"))
    return None if tag is None else f"{tag[0]}: {normalize_answer(tag[1])}"
