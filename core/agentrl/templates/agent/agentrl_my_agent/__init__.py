"""An agent that lets the model think, takes the action out of its tags, and keeps its context short.

`say` gives the model something to read, `ask` lets it speak, and `restart` begins a new context. What `ask`
returns is what will be trained on, token by token: you never touch tokens.
"""

from agentrl import Action, Agent, Conversation, Message, Observation, PluginConfig, system, user
from agentrl.text import last_tag, normalize_answer
from pydantic import Field

__all__ = ["MyAgent"]

INSTRUCTIONS = "Think, then write what you do as <action>...</action>: one action, and nothing after it."


class MyAgent(Agent):
    """Act in tags, and begin anew with a summary when the context has grown long."""

    class Config(PluginConfig):
        """Options: `--set agent.turns=4` sets one, and a misspelt one is refused."""

        turns: int = Field(default=8, ge=1, description="turns after which the context begins anew")
        instructions: str = Field(default=INSTRUCTIONS, description="what the model is told first")

    config: Config

    def __init__(self, config: Config | None = None) -> None:
        """Begin with an empty memory: one agent plays one episode."""
        super().__init__(config)
        self.done: list[str] = []

    async def act(self, observation: Observation, conversation: Conversation) -> Action:
        """Show the observation and return what the model does, whatever it says."""
        if len(self.done) % self.config.turns == 0:
            conversation.restart(*self._opening(observation))
        else:
            conversation.say(user(observation.text))
        said = await conversation.ask(stop=("</action>",))
        text = self.action_in(said)
        self.done.append(text)
        return Action(text, key=normalize_answer(text))

    def _opening(self, observation: Observation) -> list[Message]:
        """Return how a context begins: with instructions, and with what was done before."""
        done = "".join(f"You did: {text[:200]}\n" for text in self.done[-self.config.turns :])
        return [system(self.config.instructions), user(done + observation.text)]

    @staticmethod
    def action_in(said: str) -> str:
        """Return what stands in the last tags; without tags, all that was said: the env answers it."""
        found = last_tag(said, ["action"])
        return found[1] if found else said.strip()
