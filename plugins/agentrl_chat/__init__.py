"""The plainest agent: observations are the user's messages, the model's replies are the actions."""

from agentrl.conversation import Conversation
from agentrl.interfaces import Agent, PluginConfig
from agentrl.types import Action, Observation, system, user


class Chat(Agent):
    """Pass on what the env shows and what the model replies."""

    class Config(PluginConfig):
        """Options.

        Attributes:
            system: what the model is told first; "" says nothing.
            stop: texts after which the model's turn is over, besides its own end of turn.
        """

        system: str = ""
        stop: tuple[str, ...] = ()

    config: Config

    async def act(self, observation: Observation, conversation: Conversation) -> Action:
        """Show the observation and return the model's reply."""
        if not conversation.segments and self.config.system:
            conversation.say(system(self.config.system))
        conversation.say(user(observation.text))
        return Action((await conversation.ask(stop=self.config.stop)).strip())
