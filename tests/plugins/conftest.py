"""Small models to play and to train with, and the engine of PyTorch with one."""

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


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the model that `small_training` trains."""
    from small_training import write_model

    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def engine(qwen: Path) -> Iterator[Any]:
    """Yield an engine that has started."""
    from plain_generation import start

    made = start(qwen)
    yield made
    asyncio.run(made.close())
