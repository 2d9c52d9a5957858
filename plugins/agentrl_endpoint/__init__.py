"""Trains somebody's own program: one that talks to an OpenAI-compatible endpoint, as it would to any.

    agentrl run --env deepsearch --agent endpoint --set agent.program=my_agent.py:play

How its rooms fit together: `agent` is the plugin and its options; `play` brings a program, which drives, and
an env, which is driven by the core, together, turn by turn; `functions` and `commands` run the program;
`server` speaks HTTP with it, in the words of `requests` and `answers`; `history` recognises in a request's
messages the tokens that were sampled before; `tools` writes and reads the calls of tools. Nothing here
imports the HTTP library before an episode begins.
"""

from agentrl_endpoint.agent import Endpoint
from agentrl_endpoint.functions import Episode, PlainEpisode
from agentrl_endpoint.programs import EpisodeOver, ProgramFailed
from agentrl_endpoint.tools import Call, ToolFormat

__all__ = ["Call", "Endpoint", "Episode", "EpisodeOver", "PlainEpisode", "ProgramFailed", "ToolFormat"]
