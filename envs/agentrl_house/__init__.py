"""A house to search: several things have to be found and brought to the hall in a given order.

    agentrl run --env house

A long-horizon text task whose only reward comes at the end, and whose states recur, so that what was done in
a state can be compared. `building` makes houses, `world` has the rules, `expert` shows how it is done, and
`env` plays the episode.
"""

from .env import House

__all__ = ["House"]
