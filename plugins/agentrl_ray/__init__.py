"""The runtime for many machines, or many GPUs of one: Ray says where processes live.

`RayRuntime` is imported on first use and Ray itself only when a run starts, so that looking at the package
costs nothing and a machine without Ray is told what to install.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentrl_ray.runtime import RayRuntime

__all__ = ["RayRuntime"]


def __getattr__(name: str) -> Any:
    if name == "RayRuntime":
        from agentrl_ray.runtime import RayRuntime

        return RayRuntime
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
