"""Writes Markdown, and reads what docstrings say as Markdown."""

import inspect
import re
import textwrap
from collections.abc import Iterable, Sequence

SECTIONS = {"Args:": "", "Attributes:": "", "Raises:": "Raises"}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; cells are Markdown of one line."""
    lines = [list(head), ["---"] * len(head), *([one_line(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def one_line(text: str) -> str:
    """Return text as it may stand in a table's cell."""
    return " ".join(text.split()).replace("|", r"\|")


def code(text: str) -> str:
    """Return text in code's letters; "" stays."""
    return f"`{text}`" if text else ""


def codes(names: Iterable[str]) -> str:
    """Return several names in code's letters."""
    return ", ".join(code(name) for name in names)


def first_sentence(thing: object) -> str:
    """Return what the first line of a docstring says; "" where there is none."""
    return (inspect.getdoc(thing) or "").split("\n")[0]


def prose(docstring: str) -> str:
    """Return a docstring as Markdown: paragraphs, its sections as lists, and what is indented as Python."""
    text = inspect.cleandoc(docstring)
    blocks = [_block(block) for block in re.split(r"\n\s*\n", text) if block.strip()]
    return "\n\n".join(blocks)


def _block(block: str) -> str:
    if all(line.startswith("    ") for line in block.split("\n")):
        return f"```python\n{textwrap.dedent(block)}\n```"
    head, _, rest = block.partition("\n")
    if head not in SECTIONS:
        return " ".join(escaped(line.strip()) for line in block.split("\n"))
    entries = re.findall(r"(?m)^ {4}([\w.]+): ((?:.+)(?:\n {5,}.+)*)", rest)
    verb = f"{SECTIONS[head]} ".lstrip()
    return "\n".join(f"- {verb}`{name}`: {escaped(' '.join(text.split()))}" for name, text in entries)


def escaped(text: str) -> str:
    """Return text in which no sign but a backtick means anything to Markdown."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([*_\[])", r"\\\1", part).replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts)
