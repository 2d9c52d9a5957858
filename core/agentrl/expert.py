"""Follows an env's expert through an episode, whether it wrote a script or has to look first."""

from collections.abc import Sequence

from agentrl.interfaces import Env, Expert
from agentrl.types import Observation, Task


class ScriptEnded(Exception):
    """The episode goes on after the last text of a demonstration."""


class Script:
    """An expert that says one text after the other, whatever it is shown."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Take the texts, one a turn."""
        self._texts = iter(texts)

    def __call__(self, observation: Observation) -> str:
        """Return the next text.

        Raises:
            ScriptEnded: there is none.
        """
        text = next(self._texts, None)
        if text is None:
            raise ScriptEnded("the demonstration ended before the episode did")
        return text


def expert_of(env: Env, task: Task) -> Expert | None:
    """Return who plays one episode of `task` as `env` demonstrates it, None where there is no expert."""
    found = env.demonstrate(task)
    return found if found is None or callable(found) else Script(found)
