"""The errors a user is meant to read: one sentence that says what is wrong and what to do.

The command line prints these without a traceback; everything else is a bug and shows one.
"""


class AgentRLError(Exception):
    """A run cannot go on, for a reason its user can act on (exit code 1)."""

    exit_code = 1


class UsageError(AgentRLError):
    """What the user asked for cannot be done as it was asked (exit code 2)."""

    exit_code = 2


class PluginError(UsageError):
    """A plugin is missing, ambiguous, broken, disabled, or of the wrong kind."""


class OutOfMemory(AgentRLError):
    """There is not enough memory for what a run has to do."""


class Unjudged(AgentRLError):
    """A reward cannot judge this one trajectory, for a reason that says nothing about the agent."""


class EnvLost(AgentRLError):
    """What an env played on is gone, such as its machine: no doing of env or agent, so it is played again."""


class ContextFull(AgentRLError):
    """The conversation has filled the model's context: there is no room for another token."""


class TokenBudgetSpent(AgentRLError):
    """The trajectory has used all the tokens it was allowed to sample."""


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its name if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
