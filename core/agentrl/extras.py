"""Packages that only some plugins need, and that only those install who use them."""

from importlib.util import find_spec

from agentrl.errors import UsageError


def require(package: str, user: str, extra: str) -> None:
    """Refuse to go on without a package; nothing is imported.

    Args:
        package: as it is imported.
        user: who needs it, such as "the reward 'similarity'".
        extra: what pip has to install, such as "my-distribution[similarity]".

    Raises:
        UsageError: it is not installed.
    """
    if find_spec(package) is None:
        raise UsageError(f"{user} needs the package {package}: pip install '{extra}'")
