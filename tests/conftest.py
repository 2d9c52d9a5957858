"""Settings that hold for all tests, and what many of them need."""

import pytest
from hypothesis import HealthCheck, settings

# A machine that is busy is no fault of the code.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def browser() -> str:
    """Return the path of the browser, or skip the test and say how to install one."""
    from agentrl import UsageError
    from agentrl_browser import find_executable

    try:
        return find_executable()
    except UsageError as missing:
        pytest.skip(str(missing))
