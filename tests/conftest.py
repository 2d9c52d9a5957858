"""Settings that hold for all tests, and what many of them need."""

import math
import os
import random
import site
import sys
import time
import venv
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A machine that is busy is no fault of the code.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


BEGAN = time.monotonic()
# Seconds of a slow test that does not say how many.
SLOW = 1200


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--minutes",
        type=float,
        default=math.inf,
        help="begin no further test after so many; which ones come first changes from day to day",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the files with whole runs first, and give slow tests time.

    Workers that share files out are not to end with the longest.
    """
    items.sort(key=lambda item: item.path.parent != Path(__file__).parent)
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW))
    if config.getoption("minutes") < math.inf:
        random.Random(date.today().isoformat()).shuffle(items)


def pytest_runtest_setup(item: pytest.Item) -> None:
    minutes = item.config.getoption("minutes")
    if time.monotonic() - BEGAN > 60 * minutes:
        pytest.skip(f"left out: {minutes:g} minutes are over")


@pytest.fixture(scope="session")
def browser() -> str:
    """Return the path of the browser, or skip the test and say how to install one."""
    from agentrl import UsageError
    from agentrl_browser import find_executable

    try:
        return find_executable()
    except UsageError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def make_environment() -> Callable[[Path], Mapping[str, str]]:
    """Return what makes a virtual environment, and says under which variables its programs are found."""
    return _make_environment


def _make_environment(place: Path) -> Mapping[str, str]:
    """Make a virtual environment with a pip of its own that sees this one, and reaches no package index."""
    venv.create(place, with_pip=True, symlinks=True)
    packages = next(place.glob("lib/*/site-packages"))
    visible = [each for each in [*site.getsitepackages(), *sys.path] if each.endswith("site-packages")]
    lines = [f"import site; site.addsitedir({each!r})\n" for each in visible]
    (packages / "seen.pth").write_text("".join(lines))
    for program in ("agentrl", "pytest", "ruff", "mypy"):
        script = place / "bin" / program
        script.write_text(f'#!/bin/sh\nexec "{place}/bin/python" -m {program} "$@"\n')
        script.chmod(0o755)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    # 0 is how pip wants to be told in a variable that builds are not isolated.
    pip = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    path = os.pathsep.join([str(place / "bin"), os.environ["PATH"]])
    return {**kept, **pip, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "VIRTUAL_ENV": str(place), "PATH": path}
