"""The engine for many tokens: vLLM generates, in this process or in one of its own.

`VLLMEngine` is imported on first use and vLLM itself only when the engine starts, so that looking at the
package costs nothing and a machine without vLLM is told what to install.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentrl_vllm.engine import VLLMEngine

__all__ = ["VLLMEngine"]


def __getattr__(name: str) -> Any:
    if name == "VLLMEngine":
        from agentrl_vllm.engine import VLLMEngine

        return VLLMEngine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
