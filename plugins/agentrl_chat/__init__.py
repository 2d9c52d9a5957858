"""The plainest agent: observations are the user's messages, the model's replies are the actions."""

from agentrl.conversation import Conversation
from agentrl.errors import UsageError
from agentrl.interfaces import Agent, PluginConfig
from agentrl.types import Action, Observation, system, tool, user


class Chat(Agent):
    """Pass on what the env shows and what the model replies."""

    class Config(PluginConfig):
        """Options.

        Attributes:
            system: what the model is told first; "" says nothing.
            stop: texts after which the model's turn is over, besides its own end of turn.
            tools: whether the model's chat template shows the env's tools to the model; what the env answers
                is a tool's result then.
        """

        system: str = ""
        stop: tuple[str, ...] = ()
        tools: bool = False

    config: Config

    async def act(self, observation: Observation, conversation: Conversation) -> Action:
        """Show the observation and return the model's reply.

        Raises:
            UsageError: tools are to be shown, but the env has none, or the chat template does not know any.
        """
        if not conversation.segments:
            self._begin(conversation)
            conversation.say(user(observation.text))
        else:
            conversation.say((tool if self.config.tools else user)(observation.text))
        return Action((await conversation.ask(stop=self.config.stop)).strip())

    def _begin(self, conversation: Conversation) -> None:
        first = [system(self.config.system)] if self.config.system else []
        if not self.config.tools:
            conversation.say(*first)
            return
        remedy = "leave agent.tools out"
        if not conversation.tools:
            raise UsageError(f"agent.tools=true, but this env has no tools to show: {remedy}")
        if not conversation.shows_tools:
            raise UsageError(
                f"agent.tools=true, but the model's chat template shows no tools: {remedy}, or use a model "
                "whose template does"
            )
        conversation.restart(*first, tools=conversation.tools)
