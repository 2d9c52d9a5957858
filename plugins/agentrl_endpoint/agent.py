"""The agent `endpoint`: its options, and how the core plays it."""

import shlex
import shutil
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, field_validator, model_validator

from agentrl.conversation import Conversation
from agentrl.extras import require
from agentrl.interfaces import Agent, PluginConfig
from agentrl.types import Action, Observation
from agentrl_endpoint.commands import Command
from agentrl_endpoint.functions import Function
from agentrl_endpoint.programs import MakeProgram, load_function
from agentrl_endpoint.tools import FORMATS, ToolFormat

if TYPE_CHECKING:
    from agentrl_endpoint.play import Play


class Endpoint(Agent):
    """Somebody's own program, which asks the model through an OpenAI-compatible endpoint.

    What it asks is answered by the model that is trained, and recorded token by token.
    """

    class Config(PluginConfig):
        """Options; either `program` or `command` has to be set."""

        program: str | None = Field(
            default=None, description="a Python function: module:function or path/to/file.py:function"
        )
        command: tuple[str, ...] | None = Field(
            default=None, description="a command, started for an observation: a text or a list"
        )
        tool_format: str = Field(
            default="hermes",
            description="how the model writes calls of tools: hermes, tags, or a ToolFormat as module:class",
        )
        ignore: tuple[str, ...] = Field(default=(), description="fields of requests to pass over")
        own_temperature: bool = Field(
            default=False, description="let requests choose their temperature, and train at it"
        )

        @field_validator("command", mode="before")
        @classmethod
        def _words(cls, value: Any) -> Any:
            return shlex.split(value) if isinstance(value, str) else value

        @model_validator(mode="after")
        def _usable(self) -> Self:
            if (self.program is None) == (self.command is None):
                raise ValueError(
                    "say which program is to play: agent.program=module:function or agent.command=..."
                )
            if self.command is not None and not (self.command and shutil.which(self.command[0])):
                raise ValueError(f"the command {' '.join(self.command)!r} cannot be found")
            if self.program is not None:
                load_function(self.program)
            self.make_tool_format()
            return self

        def make_tool_format(self) -> ToolFormat:
            """Return how the model writes calls of tools."""
            made = (FORMATS.get(self.tool_format) or load_function(self.tool_format))()
            if not isinstance(made, ToolFormat):
                raise ValueError(f"{self.tool_format!r} is not a ToolFormat; use {', '.join(FORMATS)}")
            return made

    config: Config

    def __init__(self, config: Any = None) -> None:
        """Take a `Config`; there are no defaults for the program.

        Raises:
            UsageError: the HTTP library is not installed.
        """
        super().__init__(config)
        require("aiohttp", "the agent 'endpoint'", "agentrl-platform[endpoint]")
        self._play: Play | None = None

    async def act(self, observation: Observation, conversation: Conversation) -> Action:
        """Show the program the observation and return what it does."""
        if self._play is None:
            self._play = self._make_play(conversation)
        return await self._play.act(observation.text)

    async def close(self) -> None:
        """End the program and close its endpoint."""
        if self._play is not None:
            await self._play.close()

    def _make_play(self, conversation: Conversation) -> "Play":
        from agentrl_endpoint.history import History
        from agentrl_endpoint.play import Play

        form = self.config.make_tool_format()
        history = History(conversation, form, own_temperature=self.config.own_temperature)
        return Play(self._make_program(), history, self.config.ignore)

    def _make_program(self) -> MakeProgram:
        if self.config.command is not None:
            return partial(Command, self.config.command)
        function: Callable[..., Any] = load_function(str(self.config.program))
        return partial(Function, function)
