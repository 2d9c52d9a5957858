"""Reads and writes run files: a configuration in YAML."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentrl.config import RunConfig
from agentrl.errors import UsageError
from agentrl.yaml_text import dump_yaml, load_yaml


def load_run_file(path: Path) -> dict[str, Any]:
    """Return what a run file says (see `config.load_run_file`)."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise UsageError(f"cannot read the run file {path}: {reason}") from error
    document = load_yaml(text, str(path))
    if not isinstance(document, dict):
        raise UsageError(f"{path} is not a run file: it must be a mapping, such as `env: deepsearch`")
    return document


def render(config: RunConfig) -> str:
    """Return the configuration as a run file in YAML, with a comment on every value that is no default."""
    lines: list[str] = []
    for key, value in config.to_document().items():
        _render(lines, (key,), value, config.sources)
    return "\n".join(lines) + "\n"


def _render(lines: list[str], path: tuple[str, ...], value: Any, sources: Mapping[str, str]) -> None:
    indent = "  " * (len(path) - 1)
    if isinstance(value, Mapping) and value:
        lines.append(f"{indent}{_inline(path[-1])}:")
        for key, below in value.items():
            _render(lines, (*path, str(key)), below, sources)
        return
    dotted = ".".join(path)
    own = f"{dotted}.weight" if path[0] == "rewards" else f"{dotted}.name"
    source = sources.get(dotted) or sources.get(own)
    text = f"{indent}{_inline(path[-1])}: {_inline(value)}"
    lines.append(f"{text:<40}  # {source}" if source else text)


def _inline(value: Any) -> str:
    """Return a value as YAML on one line."""
    return " ".join(dump_yaml(value, flow=True).removesuffix("...\n").split("\n")).strip()
