"""Multi-hop question answering with a search tool: over a built-in encyclopedia, or any corpus.

    agentrl run --env deepsearch
    agentrl run --env deepsearch --set env.corpus=PATH --set env.train=PATH --set env.dev=PATH

The agent writes `<search> query</search>` or `<answer> text</answer>`; what a search finds comes back in
`<information>`. `encyclopedia` makes worlds and questions, `corpus` reads files, `retrieval` searches, and
`env` plays the episode.
"""

from .env import DeepSearch

__all__ = ["DeepSearch"]
