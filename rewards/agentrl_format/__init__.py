"""How well turns keep to the convention: an optional thought, then one action, each in its tags.

By default `<think> ...</think>` and then `<search> ...</search>` or `<answer> ...</answer>`, with nothing
else around them; the names of the tags are options, so that any tagged convention can be scored.
"""

import re

from agentrl.interfaces import PluginConfig, Reward
from agentrl.types import Trajectory


class Format(Reward):
    """The share of turns that keep to the convention, from 0 to 1."""

    class Config(PluginConfig):
        """Options.

        Attributes:
            thought: the name of the tag around a thought.
            actions: the names of the tags around actions.
            thought_required: whether a turn without a thought breaks the convention.
        """

        thought: str = "think"
        actions: tuple[str, ...] = ("search", "answer")
        thought_required: bool = False

    config: Config

    async def score(self, trajectory: Trajectory) -> float:
        """Return the share, 0 if there was no turn."""
        kept = [self.keeps(turn.action.text) for turn in trajectory.turns]
        return sum(kept) / len(kept) if kept else 0.0

    def keeps(self, text: str) -> bool:
        """Return whether `text` is one action in its tags, after a thought in its own."""
        thought, actions = re.escape(self.config.thought), "|".join(map(re.escape, self.config.actions))
        # Inside of a tag no other tag of the convention may begin or end.
        inside = rf"(?:(?!</?(?:{thought}|{actions})>).)*"
        blank = rf"\s*<{thought}>{inside}</{thought}>\s*"
        optional = "" if self.config.thought_required else "?"
        pattern = (
            rf"(?:{blank}){optional}\s*<(?P<action>{actions})>\s*+(?!</(?P=action)>){inside}</(?P=action)>\s*"
        )
        return re.fullmatch(pattern, text, re.DOTALL) is not None
