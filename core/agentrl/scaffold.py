"""Writes a new plugin from the template of its kind.

`templates/KIND` is a small distribution of a plugin that is called `my_KIND`: real files, which our own lint
and type checks look at. A new plugin is a copy of it, with its own name in place of that one.
"""

import builtins
import importlib.util
import io
import keyword
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from packaging.version import Version

import agentrl
from agentrl.discovery import list_plugins
from agentrl.errors import UsageError
from agentrl.files import writing

NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
LONGEST = 40
# How the templates say which versions of the core they are made for.
RANGE = ">=0.1,<0.2"


@dataclass(frozen=True, slots=True)
class Blank:
    """A plugin that is to be written."""

    kind: str
    name: str

    @classmethod
    def of(cls, kind: str, name: str) -> "Blank":
        """Return a plugin of this name.

        Raises:
            UsageError: the name cannot be had; it says why.
        """
        blank = cls(kind, name)
        problem = _malformed(name) or blank._taken() or blank._confusing()
        if problem:
            raise UsageError(f"{name!r} cannot be the name of {_an(kind)}: {problem}")
        return blank

    @property
    def class_name(self) -> str:
        """Return what its class is called."""
        return "".join(part.title() for part in self.name.split("_"))

    @property
    def package(self) -> str:
        """Return what is imported."""
        return f"agentrl_{self.name}"

    @property
    def distribution(self) -> str:
        """Return what is installed."""
        return f"agentrl-{self.name.replace('_', '-')}"

    def _taken(self) -> str | None:
        for info in list_plugins(self.kind):
            if info.name == self.name:
                return f"{info.owner} has one that is called so; choose another name"
        if importlib.util.find_spec(self.package):
            return f"a package {self.package} is installed already; choose another name"
        return None

    def _confusing(self) -> str | None:
        used = {word for path, text in self._template() if path.endswith(".py") for word in _words(text)}
        if self.class_name in used or hasattr(builtins, self.class_name):
            other = f"{self.name}_{self.kind}"
            return f"its class would be called {self.class_name}, as something else is; try {other!r}"
        return None

    def write(self, folder: Path) -> Iterator[Path]:
        """Write the distribution into `folder`, and yield each file that was written.

        Raises:
            UsageError: there is something in the folder already.
            AgentRLError: it cannot be written.
        """
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise UsageError(f"{folder} is there already; name a folder that is not, with --into")
        for name, text in self._template():
            path = folder / self._renamed(name)
            with writing(path, "the new plugin"):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(self._renamed(text), encoding="utf-8")
            yield path

    def commands(self) -> list[str]:
        """Return the commands to go on with: those that the README begins with."""
        text = next(text for name, text in self._template() if name == "README.md")
        return re.findall(r"(?m)^ {4}(.+)$", self._renamed(text).partition("\n|")[0])

    def _renamed(self, text: str) -> str:
        """Return `text` with the plugin's names in place of the template's."""
        own = {
            f"my_{self.kind}": self.name,
            f"my-{self.kind}": self.name.replace("_", "-"),
            f"My{self.kind.title()}": self.class_name,
            RANGE: _range(),
        }
        for template, mine in own.items():
            text = text.replace(template, mine)
        return text

    def _template(self) -> Iterator[tuple[str, str]]:
        """Yield path and text of each file of the template."""
        yield from _files(resources.files(agentrl) / "templates" / self.kind, "")


def _files(folder: Traversable, prefix: str) -> Iterator[tuple[str, str]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            if not entry.name.startswith((".", "__")):  # what tools leave behind
                yield from _files(entry, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name, entry.read_text(encoding="utf-8")


def _malformed(name: str) -> str | None:
    """Return what is wrong with a name as such."""
    if not NAME.fullmatch(name):
        cleaned = "_".join(re.findall(r"[a-z0-9]+", name.lower())).lstrip("0123456789_")
        such = cleaned if NAME.fullmatch(cleaned) else "my_game"
        return f"it takes lower-case letters, digits and single underscores, such as {such!r}"
    if keyword.iskeyword(name):
        return f"it is a word of Python's own; choose another, such as 'my_{name}'"
    if len(name) > LONGEST:
        return f"it is longer than {LONGEST} characters; choose a shorter one"
    return None


def _words(text: str) -> set[str]:
    """Return the names that Python code uses."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {token.string for token in tokens if token.type == tokenize.NAME}


def _an(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _range() -> str:
    """Return the versions of the core with which this one's plugins work: up to the next minor one."""
    major, minor, *_ = Version(agentrl.__version__).release
    return f">={major}.{minor},<{major}.{minor + 1}"
