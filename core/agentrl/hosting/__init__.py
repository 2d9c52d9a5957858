"""Where envs live while they play: in this process, in worker processes, or in another virtual environment.

`pool` lends envs to episodes, whichever way they live. `worker_env` is an env that plays by proxy, `process`
the process it keeps on a leash, `worker` what runs in there; `frames` says how the two talk, `codec` what
values cross, and what an env may return. `elsewhere` has all that other virtual environments need.
"""

from agentrl.hosting.codec import Nonsense, check_action, check_observation, check_outcome
from agentrl.hosting.pool import EnvPool, InProcessPool, WorkerPool
from agentrl.hosting.process import WorkerDied
from agentrl.hosting.worker_env import EnvRaised, WorkerEnv

__all__ = [
    "EnvPool",
    "EnvRaised",
    "InProcessPool",
    "Nonsense",
    "WorkerDied",
    "WorkerEnv",
    "WorkerPool",
    "check_action",
    "check_observation",
    "check_outcome",
]
