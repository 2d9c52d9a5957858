"""AppWorld: tasks of everyday life in apps with hundreds of APIs, solved by writing code.

    agentrl env setup appworld
    agentrl run --env appworld

`env` lists tasks and expert solutions. `inside` runs in AppWorld's own interpreter: `worker` plays an episode
on data without ground truth, `judge` decides in another process, and `small_world` generates tasks of our own
from AppWorld's app code, on the user's machine.
"""

from .env import AppWorld

__all__ = ["AppWorld"]
