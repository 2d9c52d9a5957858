"""Envs in another virtual environment, which a plugin declares and `agentrl env setup NAME` builds.

`declaration` is what a plugin says, `site` where its environment is, `sources` what of the plugin's code it
is made of, `building` builds it. `remote_env` is the env that authors subclass, and the proxy that plays an
episode; `remote_pool` lends proxies to episodes, `sandbox` puts walls around them, and `court` judges them.
Over there runs `worker`, with nothing but the standard library, which forks a process for each episode, in an
`enclosure` where there are walls; `zygote` and `episode` are our ends of it and of them.
"""

from agentrl.hosting.elsewhere.building import remove, set_up
from agentrl.hosting.elsewhere.declaration import Environment, Sandbox, SetupStep
from agentrl.hosting.elsewhere.remote_env import RemoteEnv
from agentrl.hosting.elsewhere.remote_pool import RemotePool
from agentrl.hosting.elsewhere.site import Site, cache_folder, others_of, site_of, size_of

__all__ = [
    "Environment",
    "RemoteEnv",
    "RemotePool",
    "Sandbox",
    "SetupStep",
    "Site",
    "cache_folder",
    "others_of",
    "remove",
    "set_up",
    "site_of",
    "size_of",
]
