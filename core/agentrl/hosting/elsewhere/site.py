"""Where a plugin's other virtual environment is, what it is made of, and whether it is there.

It lies in the user's cache folder, under a name that changes with all that it is made of. So a new version of
the plugin gets a new one, and two plugins never share one by mistake.
"""

import hashlib
import inspect
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.specifiers import SpecifierSet

from agentrl.discovery import list_plugins
from agentrl.errors import UsageError
from agentrl.hosting.elsewhere.declaration import Environment, SetupStep
from agentrl.hosting.elsewhere.sources import hash_sources, mentions_package

if TYPE_CHECKING:
    from agentrl.hosting.elsewhere.remote_env import RemoteEnv

NOTE = "env.json"
VENV, REQUIREMENTS = "create the virtual environment", "install the requirements"
_CANDIDATES = ("python3", *(f"python3.{minor}" for minor in range(14, 8, -1)))


@dataclass(frozen=True, slots=True)
class Site:
    """The place of an environment.

    Attributes:
        name: of the env.
        environment: what was declared.
        package: the folder of the plugin's code.
        folder: holds the virtual environment, its files, its log and the note of what is done.
        base: the interpreter that it is made with.
        target: the env's class, as "module:Class".
    """

    name: str
    environment: Environment
    package: Path
    folder: Path
    base: Path
    target: str

    @property
    def python(self) -> Path:
        """Return the environment's interpreter."""
        return self.folder / "venv" / "bin" / "python"

    @property
    def files(self) -> Path:
        """Return the folder for what the steps leave behind."""
        return self.folder / "files"

    @property
    def log(self) -> Path:
        """Return where the output of the set-up is written."""
        return self.folder / "setup.log"

    @property
    def titles(self) -> list[str]:
        """Return what has to be done, in order."""
        return [VENV, REQUIREMENTS, *(step.title for step in self.steps)]

    @property
    def steps(self) -> list[SetupStep]:
        """Return the steps that are always done."""
        return [step for step in self.environment.steps if step.option is None]

    @property
    def options(self) -> dict[str, SetupStep]:
        """Return the steps that are done when they are asked for, by option."""
        return {step.option: step for step in self.environment.steps if step.option is not None}

    @property
    def done(self) -> list[str]:
        """Return what is done: of the titles, and behind them of the steps that were asked for."""
        try:
            return list(json.loads((self.folder / "done.json").read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return []

    @property
    def ready(self) -> bool:
        """Return whether an env can play here."""
        return self.done[: len(self.titles)] == self.titles and self.python.exists()

    @property
    def note(self) -> dict[str, str]:
        """Return what is noted in the folder, to tell whose it is."""
        return {"env": self.target, "package": str(self.package)}

    def fill(self, text: str) -> str:
        """Return `text` with the folders that it names by "{package}" and "{files}"."""
        return text.replace("{package}", str(self.package)).replace("{files}", str(self.files))

    def variables(self) -> dict[str, str]:
        """Return the environment variables of what runs over there: none that lead Python elsewhere."""
        ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
        kept = {name: value for name, value in os.environ.items() if name not in ours}
        return {**kept, **self.declared_variables()}

    def declared_variables(self) -> dict[str, str]:
        """Return those of them that are the same whoever runs it."""
        filled = {name: self.fill(value) for name, value in self.environment.variables.items()}
        return {"PYTHONNOUSERSITE": "1", **filled}

    def require(self) -> "Site":
        """Return this site if it is ready.

        Raises:
            UsageError: it is not; the message has the command.
        """
        if self.ready:
            return self
        state = "is not set up" if not self.done else "is set up only in part"
        raise UsageError(
            f"the env {self.name!r} plays in a virtual environment of its own, which {state}; "
            f"set it up with: agentrl env setup {self.name}"
        )


def site_of(env: "type[RemoteEnv]", name: str | None = None) -> Site:
    """Return the place of an env's environment; `name` is the env's, None looks it up.

    Raises:
        UsageError: no Python here will do.
    """
    environment, name = env.environment, name or _name_of(env)
    base, version = _interpreter(environment.python, name)
    package = _folder_of(env)
    made_of = {
        "requirements": environment.requirements,
        "steps": [(step.title, step.arguments) for step in environment.steps if step.option is None],
        "sources": hash_sources(environment, package),
        "variables": dict(environment.variables),
        "python": version,
        "package": str(package) if mentions_package(environment) else "",
    }
    key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:12]
    folder = cache_folder() / f"{env.__module__.partition('.')[0]}-{key}"
    return Site(name, environment, package, folder, Path(base), f"{env.__module__}:{env.__qualname__}")


def others_of(site: Site) -> list[Site]:
    """Return the places of an env's environment from when it was made of something else."""
    prefix = site.folder.name.rpartition("-")[0]
    found = sorted(site.folder.parent.glob(f"{prefix}-*"))
    return [replace(site, folder=folder) for folder in found if _is_other(site, folder)]


def _is_other(site: Site, folder: Path) -> bool:
    """Return whether a folder is of an older version of the same plugin, and not of its copy elsewhere."""
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        mine = note["env"] == site.target
        package = Path(note["package"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return folder != site.folder and mine and (package == site.package or not package.exists())


def cache_folder() -> Path:
    """Return the folder of all environments."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "agentrl" / "environments"


def size_of(site: Site) -> int:
    """Return the bytes that an environment holds."""
    return sum(path.lstat().st_size for path in site.folder.rglob("*") if not path.is_dir())


def _folder_of(env: type) -> Path:
    return Path(inspect.getfile(env)).resolve().parent


def _name_of(env: type) -> str:
    target = f"{env.__module__}:{env.__qualname__}"
    targets = {info.target: info.name for info in list_plugins("env")}
    package = env.__module__.partition(".")[0]
    shorter = f"{package}:{env.__qualname__}"
    return targets.get(target) or targets.get(shorter) or target


@lru_cache
def _interpreter(wanted: str, name: str) -> tuple[str, str]:
    """Return the first interpreter here whose version will do, ours before all others, and "3.12" or so."""
    specifiers = SpecifierSet(wanted)
    own = getattr(sys, "_base_executable", sys.executable)
    for candidate in (own, *_CANDIDATES):
        path = shutil.which(candidate)
        version = _version(path) if path else None
        if path and version and specifiers.contains(version, prereleases=True):
            return path, version.rpartition(".")[0]
    raise UsageError(
        f"the env {name!r} needs Python {wanted}, which was not found here; install one that is on the PATH"
    )


@lru_cache
def _version(path: str) -> str | None:
    """Return the version of an interpreter, None if it does not start."""
    code = "import sys, venv; print('%d.%d.%d' % sys.version_info[:3])"
    try:
        done = subprocess.run([path, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
