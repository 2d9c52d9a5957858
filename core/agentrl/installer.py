"""A thin layer over pip: asks it what there is, what it would do, and has it do that.

It is always the pip of the Python that runs, so what is installed is found. There is no search on package
indexes; pip can be asked for exact names only.
"""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shlex import join
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from agentrl.errors import AgentRLError, UsageError
from agentrl.provenance import without_password

PREFIX = "agentrl-"
PYPI = "https://pypi.org/simple"


@dataclass(frozen=True, slots=True)
class Where:
    """Where pip is to look, besides what it is set to; `index_url` is in place of that."""

    index_url: str | None = None
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()

    def options(self) -> list[str]:
        """Return the options of pip that say so."""
        index = ["--index-url", self.index_url] if self.index_url else []
        more = [part for url in self.extra_index_urls for part in ("--extra-index-url", url)]
        return [*index, *more, *(part for place in self.find_links for part in ("--find-links", place))]


@dataclass(frozen=True, slots=True)
class Change:
    """A distribution that pip would install; `present` is the version that it would replace, "" if none."""

    name: str
    version: str
    source: str
    present: str

    @property
    def replaces(self) -> bool:
        """Return whether another version is there."""
        return bool(self.present) and self.present != self.version


def distribution_named(word: str) -> str:
    """Return the distribution that a plugin called `word` is expected in: that which `agentrl new` writes.

    Raises:
        UsageError: no distribution can be called so.
    """
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", word):
        raise UsageError(f"{word!r} cannot be the name of a distribution: name a plugin, such as brevity")
    name = canonicalize_name(word)
    return name if name.startswith(PREFIX) else PREFIX + name


def command(*arguments: str) -> list[str]:
    """Return the command line of this Python's pip."""
    return [sys.executable, "-m", "pip", *arguments]


def require_pip() -> None:
    """Refuse to go on where this Python has no pip.

    Raises:
        AgentRLError: it says how to get one, or to do without.
    """
    if _asked("--version").returncode:
        raise AgentRLError(
            f"{sys.executable} has no pip; make one with `{sys.executable} -m ensurepip`, or install the "
            "plugin with the tool that made this environment, such as `uv pip install NAME`"
        )


def versions(name: str, where: Where) -> list[str]:
    """Return the versions of a distribution that pip could install here, the newest first; [] if none.

    Raises:
        AgentRLError: pip could not ask: a place does not answer, say.
    """
    asked = _asked("index", "versions", name, "--retries", "1", *where.options())
    if found := re.search(r"(?m)^Available versions: (.+)$", asked.stdout):
        return found[1].split(", ")
    if "No matching distribution" not in asked.stderr or "Retrying" in asked.stderr:
        raise AgentRLError(f"pip could not look for {name}: {_complaint(asked)}")
    return []


def places(where: "Where") -> list[str]:
    """Return where pip looks, without the passwords in addresses."""
    listed = _asked("config", "list").stdout
    said = {key: _text(value).split() for key, value in re.findall(r"(?m)^[^.\n]+\.([a-z-]+)=(.+)$", listed)}
    index = [where.index_url] if where.index_url else said.get("index-url", [PYPI])
    more = [*said.get("extra-index-url", []), *where.extra_index_urls]
    links = [*said.get("find-links", []), *where.find_links]
    found = links if "no-index" in said else [*index, *more, *links]
    return [without_password(place) for place in dict.fromkeys(found)]


def _text(value: str) -> str:
    """Return a value as `pip config list` quotes it."""
    try:
        return str(ast.literal_eval(value))
    except (SyntaxError, ValueError):  # another pip may quote in another way
        return value


def named(requirement: str) -> str | None:
    """Return the distribution that is asked for by name; None for folders, files and addresses."""
    try:
        parsed = Requirement(requirement)
    except InvalidRequirement:
        return None
    return None if parsed.url or Path(requirement).exists() else parsed.name


def plan(arguments: Sequence[str]) -> list[Change] | None:
    """Return what `pip install` would do about names and wheels; None if there are no wheels of all of it.

    No code of what would be installed runs. Not for folders and source distributions: pip builds those even
    to say what they are, and building runs code of their authors'.
    """
    asked = _asked(
        "install",
        "--dry-run",
        "--quiet",
        "--only-binary",
        ":all:",
        "--report",
        "-",
        "--retries",
        "1",
        *arguments,
    )
    if asked.returncode:
        return None
    try:
        report = json.loads(asked.stdout)
    except ValueError:
        return None
    return [_change(entry) for entry in report["install"]]


def _change(entry: dict[str, Any]) -> Change:
    name, new = entry["metadata"]["name"], entry["metadata"]["version"]
    try:
        present = version(name)
    except PackageNotFoundError:
        present = ""
    return Change(name, new, without_password(entry["download_info"]["url"]), present)


def install(arguments: Sequence[str]) -> None:
    """Have pip install, and show what it says.

    Raises:
        AgentRLError: pip has failed.
    """
    line = command("install", *arguments)
    code = subprocess.run(line, check=False).returncode
    if code:
        raise AgentRLError(f"pip ended with {code}, and says above why; the command was: {join(line)}")


def _asked(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Return what pip answers when it may not ask back."""
    line = command(*arguments, "--disable-pip-version-check", "--no-input")
    return subprocess.run(line, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)


def _complaint(asked: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in asked.stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["it says nothing"])[-1]
