"""Puts walls around the worlds of an env that declares a `Sandbox`, with the program `bwrap` (bubblewrap).

bwrap starts the worker with users, processes, network and files of its own. It sees, read-only, the system's
programs and libraries, its interpreter, its virtual environment, the file of the world, and what was
declared; nothing of the home folder, the cache or the run, and none of our environment variables. In there,
`enclosure` forks each episode into a smaller cell. The judge stays outside.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from agentrl.errors import UsageError
from agentrl.hosting.elsewhere.declaration import Sandbox
from agentrl.hosting.elsewhere.site import Site

ENCLOSURE = Path(__file__).with_name("enclosure.py")
# In the place of the home folder and of /tmp.
SCRATCH = "/scratch"
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_SYSTEM = ("/usr", "/usr/local")
# Of the system and of an interpreter's folder, in which people may keep their own things as well.
_PARTS = ("bin", "sbin", "lib", "lib32", "lib64", "libexec", "share")
_LINKED = ("/bin", "/sbin", "/lib", "/lib32", "/lib64")
_CONFIGURATION = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime")
_KEPT_VARIABLES = ("LANG", "LC_ALL", "TZ")
_WITHOUT = "; --set env.sandbox=false plays without it, where code that a model writes can read every answer"


def rule_of(sandbox: Sandbox, site: Site) -> dict[str, object]:
    """Return what the enclosure of an episode is told."""
    return {
        "devices": [device for device in DEVICES if os.path.exists(device)],
        "private": [SCRATCH, *map(site.fill, sandbox.writable)],
        "disk_mb": sandbox.disk_mb,
        "programs": sandbox.programs,
    }


def variables_of(site: Site) -> dict[str, str]:
    """Return all environment variables of what runs in the sandbox."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    own = {"HOME": SCRATCH, "TMPDIR": SCRATCH, "USER": "world", "LOGNAME": "world", "PATH": "/usr/bin:/bin"}
    return {"LANG": "C.UTF-8", **kept, **own, **site.declared_variables()}


def walled(command: Sequence[str], site: Site, sandbox: Sandbox, files: Sequence[Path]) -> list[str]:
    """Return what runs `command` within the walls, where it can read `files`."""
    return [
        shutil.which("bwrap") or "bwrap",
        *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"),
        *("--unshare-cgroup-try", "--hostname", "world", "--die-with-parent"),
        *("--uid", "65534", "--gid", "65534"),
        # Needed to enclose episodes, and given up there. It has power over these namespaces only.
        *("--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN"),
        *_system(),
        *_interpreter(site.python),
        *_own(site, sandbox, files),
        *("--chdir", str(site.files), "--", *command),
    ]


def check(site: Site, sandbox: Sandbox) -> None:
    """See to it that episodes of this env can be played in their sandbox here.

    Raises:
        UsageError: they cannot; the message has the remedy.
    """
    if shutil.which("bwrap") is None:
        raise UsageError(
            f"the env {site.name!r} plays in a sandbox, which the program bwrap makes, and it is not there; "
            "install bubblewrap, for example with: apt-get install bubblewrap" + _WITHOUT
        )
    rule = json.dumps({**rule_of(sandbox, site), "private": [SCRATCH]})
    command = [str(site.python), "-I", "-S", str(ENCLOSURE), rule]
    done = subprocess.run(
        walled(command, site, Sandbox(), [ENCLOSURE]),
        env=variables_of(site), capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UsageError(
            f"the env {site.name!r} plays in a sandbox, which bwrap cannot make here ({said}); allow this "
            "user namespaces of its own (in a container: --security-opt seccomp=unconfined "
            "--cap-add SYS_ADMIN; on Ubuntu: sysctl kernel.apparmor_restrict_unprivileged_userns=0)"
            + _WITHOUT
        )


def _system() -> Iterator[str]:
    for folder in _SYSTEM:
        yield from _parts(folder)
    for link in _LINKED:
        if os.path.islink(link):
            yield from ("--symlink", os.readlink(link), link)
        else:
            yield from ("--ro-bind-try", link, link)
    for path in _CONFIGURATION:
        yield from ("--ro-bind-try", path, path)
    for device in DEVICES:
        if os.path.exists(device):
            yield from ("--dev-bind", device, device)


def _parts(folder: str) -> Iterator[str]:
    for part in _PARTS:
        path = os.path.join(folder, part)
        if os.path.islink(path):
            yield from ("--symlink", os.readlink(path), path)
        elif os.path.isdir(path):
            yield from ("--ro-bind", path, path)


def _interpreter(python: Path) -> Iterator[str]:
    """Show the interpreter that the virtual environment is made with, and the links that lead to it."""
    prefixes = _prefixes(str(python))
    folders = dict.fromkeys([*prefixes, *map(os.path.realpath, prefixes)])
    for folder in folders:
        if folder not in _SYSTEM:
            yield from _parts(folder)
    while python.is_symlink():
        target = os.readlink(python)
        python = python.parent / target
        if python.is_symlink() and python.parent.name == "bin" and str(python.parents[1]) not in folders:
            yield from ("--symlink", os.readlink(python), str(python))


@lru_cache
def _prefixes(python: str) -> tuple[str, ...]:
    code = "import sys; print(sys.base_prefix, sys.base_exec_prefix, sep='\\n')"
    said = subprocess.run([python, "-I", "-S", "-c", code], capture_output=True, text=True, check=True).stdout
    return tuple(said.splitlines())


def _own(site: Site, sandbox: Sandbox, files: Sequence[Path]) -> Iterator[str]:
    """Show what belongs to the env, in empty folders in place of its own."""
    readable, writable = list(map(site.fill, sandbox.readable)), list(map(site.fill, sandbox.writable))
    venv = str(site.folder / "venv")
    # The plugin may be installed beside the interpreter, and know more than the world is to know.
    own = (str(site.package), str(site.folder))
    yield from ("--tmpfs", SCRATCH)
    shown = [str(site.folder), *_prefixes(str(site.python)), *map(str, files), *readable, *writable]
    if not any(path.startswith("/tmp/") for path in shown):
        yield from ("--symlink", SCRATCH, "/tmp")
    for folder in own:
        yield from ("--tmpfs", folder)
    yield from ("--dir", str(site.files), "--ro-bind-try", venv, venv)
    for path in (*readable, *map(str, files)):
        yield from ("--ro-bind-try", path, path)
    hidden = [path for path in map(site.fill, sandbox.hidden) if os.path.isdir(path)]
    for path in (*writable, *hidden):
        yield from ("--tmpfs", path)
    for folder in (*own, *hidden, "/"):
        yield from ("--remount-ro", folder)
