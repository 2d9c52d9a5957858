"""A plugin platform for online reinforcement learning of multi-turn, tool-using LLM agents."""

from agentrl.conversation import Conversation
from agentrl.errors import AgentRLError, PluginError, Unjudged, UsageError
from agentrl.hookspecs import hookimpl
from agentrl.hosting.elsewhere import Environment, RemoteEnv, Sandbox, SetupStep
from agentrl.interfaces import (
    Agent,
    Aggregation,
    Algorithm,
    Curriculum,
    Engine,
    Env,
    Expert,
    Model,
    Plugin,
    PluginConfig,
    Reward,
    Tokens,
    Trainer,
)
from agentrl.lazy_tasks import LazyTasks
from agentrl.policy_gradient import PolicyGradient
from agentrl.runtime import Runtime
from agentrl.types import (
    Action,
    Batch,
    Completion,
    Credit,
    Group,
    Message,
    Observation,
    Outcome,
    Sampling,
    Segment,
    Span,
    Task,
    Trajectory,
    Turn,
    system,
    tool,
    user,
)

__version__ = "0.1.0"

__all__ = [
    "Action",
    "Agent",
    "AgentRLError",
    "Aggregation",
    "Algorithm",
    "Batch",
    "Completion",
    "Conversation",
    "Credit",
    "Curriculum",
    "Engine",
    "Env",
    "Environment",
    "Expert",
    "Group",
    "LazyTasks",
    "Message",
    "Model",
    "Observation",
    "Outcome",
    "Plugin",
    "PluginConfig",
    "PluginError",
    "PolicyGradient",
    "RemoteEnv",
    "Reward",
    "Runtime",
    "Sampling",
    "Sandbox",
    "Segment",
    "SetupStep",
    "Span",
    "Task",
    "Tokens",
    "Trainer",
    "Trajectory",
    "Turn",
    "Unjudged",
    "UsageError",
    "hookimpl",
    "system",
    "tool",
    "user",
]
