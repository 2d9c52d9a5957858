"""What holds for the whole repository: who imports whom, what a plugin folder is, what a file may say."""

import configparser
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from agentrl.discovery import HOOK, KINDS, group_of
from agentrl.interfaces import Plugin
from agentrl.plugins import load

ROOT = Path(__file__).parent.parent
SOURCE_ROOTS = ("plugins", "envs", "algorithms", "rewards")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
GROUPS: dict[str, dict[str, str]] = PROJECT["entry-points"]
FOLDERS = sorted(
    path for root in SOURCE_ROOTS for path in (ROOT / root).iterdir() if path.name.startswith("agentrl_")
)
HEAVY = ("torch", "numpy", "transformers", "tensorboard", "bm25s")


def entry_points() -> Iterator[tuple[str, str, str]]:
    for kind in KINDS:
        for name, target in GROUPS.get(group_of(kind), {}).items():
            yield kind, name, target


def run_python(code: str, *arguments: str) -> str:
    """Return what a fresh interpreter prints that finds this checkout first."""
    roots = [str(ROOT / root) for root in ("core", *SOURCE_ROOTS)]
    header = f"import sys; sys.path[:] = {[*roots, *sys.path]!r}\n"
    done = subprocess.run(
        [sys.executable, "-c", header + code, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def refined() -> set[str]:
    """Return the plugins that others may import, according to the import contracts."""
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter")
    allowed = contracts["importlinter:contract:plugins"]["ignore_imports"].strip().splitlines()
    return {line.rpartition(" -> ")[2] for line in allowed}


# Who imports whom


@pytest.mark.skipif(not find_spec("importlinter"), reason="import-linter is not installed")
def test_import_contracts_are_kept() -> None:
    run_python(
        "from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True, no_logo=True))"
    )


def test_every_plugin_is_under_the_import_contracts() -> None:
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter")
    expected = {folder.name for folder in FOLDERS}
    named = {
        "root_packages": contracts["importlinter"]["root_packages"],
        "core": contracts["importlinter:contract:core"]["forbidden_modules"],
        "plugins": contracts["importlinter:contract:plugins"]["modules"],
    }
    for where, names in named.items():
        assert expected == {name for name in names.split() if name.startswith("agentrl_")}, where


def test_the_whole_core_runs_without_anything_heavy_and_imports_no_plugin() -> None:
    code = """
import importlib, pkgutil, agentrl
for module in pkgutil.walk_packages(agentrl.__path__, "agentrl."):
    if module.name not in ("agentrl.testing.bandit", "agentrl.testing.losses", "agentrl.__main__"):
        importlib.import_module(module.name)
names = {name.partition(".")[0] for name in sys.modules}
print(*sorted(name for name in names if name in sys.argv[1:] or name.startswith("agentrl_")))
"""
    assert run_python(code, *HEAVY) == ""


def test_rewards_algorithms_agents_and_hooks_are_imported_without_torch() -> None:
    kinds = ("reward", "algorithm", "agent", HOOK)
    modules = sorted({target.partition(":")[0] for kind, _, target in entry_points() if kind in kinds})
    code = """
import importlib
sys.modules["torch"] = None
for module in sys.argv[1:]:
    importlib.import_module(module)
"""
    run_python(code, *modules)


def test_listing_plugins_imports_none() -> None:
    code = """
from agentrl.discovery import list_plugins
list_plugins()
print(*sorted(name for name in sys.modules if name.startswith("agentrl_")))
"""
    assert run_python(code) == ""


# What a plugin folder is


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_plugin_folder_could_be_a_distribution_of_its_own(folder: Path) -> None:
    assert (folder / "__init__.py").is_file(), "a plugin is a package"
    assert (folder / "py.typed").is_file(), "a plugin ships its types"
    modules = {target.partition(":")[0].partition(".")[0] for _, _, target in entry_points()}
    announced = "pyproject.toml announces every plugin by an entry point, unless it is what others refine"
    assert folder.name in modules | refined(), announced


def test_entry_points_are_in_known_groups() -> None:
    plugins = {folder.name for folder in FOLDERS}
    own = {group for group in GROUPS if group.partition(".")[0] in plugins}
    assert set(GROUPS) - own <= {group_of(kind) for kind in KINDS} | {"pytest11"}


@pytest.mark.parametrize(("kind", "name", "target"), list(entry_points()))
def test_every_entry_point_resolves_to_its_kind(kind: str, name: str, target: str) -> None:
    module, _, attribute = target.partition(":")
    try:
        found = importlib.import_module(module)
        plugin = getattr(found, attribute) if attribute else found
    except ModuleNotFoundError as error:
        if str(error.name).startswith("agentrl"):
            raise
        pytest.skip(f"{error.name} is not installed")
    if kind == HOOK:
        assert isinstance(plugin, ModuleType) or issubclass(plugin, Plugin)
    else:
        assert load(kind, name) is plugin


@pytest.mark.parametrize("target", [*PROJECT["scripts"].values(), *GROUPS.get("pytest11", {}).values()])
def test_commands_and_pytest_plugins_resolve(target: str) -> None:
    module, _, attribute = target.partition(":")
    found = importlib.import_module(module)
    assert not attribute or callable(getattr(found, attribute))


# What a file may say

_MACHINE_PATH = re.compile(r"/(?:root|work|home|Users)/\w")
_INDEX = re.compile(r"(?:index-url|find-links)\W+https?://(?!download\.pytorch\.org|pypi\.org)")


def tracked_files() -> list[Path]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no git checkout")
    return [ROOT / name for name in listed.split("\0") if name]


def test_no_file_names_a_path_or_a_package_index_of_somebodys_machine() -> None:
    suspects = []
    for path in tracked_files():
        if path.is_file() and path.stat().st_size < 1_000_000:
            text = path.read_text(encoding="utf-8", errors="replace")
            found = [pattern.search(text) for pattern in (_MACHINE_PATH, _INDEX)]
            suspects += [f"{path.relative_to(ROOT)}: {match[0]}" for match in found if match]
    assert suspects == []
