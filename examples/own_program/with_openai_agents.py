"""The same agent with a library: the OpenAI Agents SDK runs the loop, and calls the tool.

pip install openai-agents
agentrl run with_openai_agents.yaml
"""

from typing import Any

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from agents.exceptions import AgentsException
from openai import AsyncOpenAI

# It would be sent to OpenAI.
set_tracing_disabled(True)


async def play(observation: str, episode: Any) -> str:
    """Let the library answer the question; its tool searches in the env."""

    @function_tool
    async def search(query: str) -> str:
        """Look something up in the encyclopedia."""
        return str(await episode.step(f"<search> {query}</search>"))

    async with AsyncOpenAI(base_url=episode.base_url, api_key=episode.api_key, max_retries=0) as client:
        agent: Agent[Any] = Agent(
            name="researcher",
            instructions="Answer the question inside <answer> and </answer>.",
            model=OpenAIChatCompletionsModel(model=episode.model, openai_client=client),
            model_settings=ModelSettings(extra_args={"stop": ["</answer>"]}),
            tools=[search],
        )
        try:
            result = await Runner.run(agent, observation, max_turns=6)
        except AgentsException:
            # What the model does wrong is to be judged, and learnt from: it is no failure of the program.
            return "no answer"
    return f"{result.final_output}</answer>"
