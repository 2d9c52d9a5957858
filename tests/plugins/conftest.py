"""A small model, and the engine of PyTorch with it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a small model."""
    from plain_generation import make_model, save

    return save(make_model("qwen"), tmp_path_factory.mktemp("qwen"))


@pytest.fixture
def engine(qwen: Path) -> Iterator[Any]:
    """Yield an engine that has started."""
    from plain_generation import start

    made = start(qwen)
    yield made
    asyncio.run(made.close())
