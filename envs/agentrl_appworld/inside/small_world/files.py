"""Write what AppWorld reads: JSON and code, each with the canary that its licence asks to keep."""

import json
from pathlib import Path
from typing import Any

from appworld.common.constants import CANARY_STRING  # type: ignore[import-not-found]


def write_json(path: Path, value: Any) -> None:
    """Write a value, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def write_code(path: Path, text: str) -> None:
    """Write code below AppWorld's canary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"# Canary String: {CANARY_STRING}\n{text.lstrip()}", encoding="utf-8")
