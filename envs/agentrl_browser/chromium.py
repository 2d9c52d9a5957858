"""Finds Chromium, starts it with the flags that close it off, and ends it with all it has started.

A browser lives in a process group and a profile folder of its own. The folder's name holds the process that
made it, so that what a killed run has left behind is swept when the next browser starts.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import weakref
from pathlib import Path

from agentrl.errors import UsageError

VARIABLE = "AGENTRL_BROWSER"
# The binaries themselves come before the scripts that Debian wraps around them, which print and add flags.
CANDIDATES = (
    "/usr/lib/chromium/chromium-headless-shell",
    "chromium-headless-shell",
    "chrome-headless-shell",
    "/usr/lib/chromium/chromium",
    "chromium",
    "chromium-browser",
    "google-chrome",
)
PLAYWRIGHT = (
    "chromium_headless_shell-*/chrome-*/*headless*shell",
    "chromium-*/chrome-linux*/chrome",
)
MISSING = (
    "no browser was found; install one, as root, with: apt-get update && "
    "apt-get install --no-install-recommends chromium-headless-shell "
    f"(or name one in ${VARIABLE})"
)
FLAGS = (
    "--headless",
    "--remote-debugging-pipe",
    # As root there is no sandbox of Chromium's own to be had; pages are ours, and the network is closed.
    "--no-sandbox",
    "--disable-gpu",
    # Containers have a small /dev/shm, and a renderer that cannot get memory there crashes.
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--disable-breakpad",
    "--disable-crash-reporter",
    "--metrics-recording-only",
    "--mute-audio",
    "--password-store=basic",
    # Pages in the background keep their timers.
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
    # Nothing leaves but through the interception: a proxy whose name cannot be resolved, loopback included,
    # for whatever the interception does not see (WebSockets, workers), no names, no UDP past the proxy.
    "--proxy-server=http://closed.invalid:9",
    "--proxy-bypass-list=<-loopback>",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--disable-quic",
    "--disable-shared-workers",
    # No second window, whoever asks for it.
    "--block-new-web-contents",
    "--deny-permission-prompts",
    "--disable-features=BackForwardCache,DeferRendererTasksAfterInput,IsolateSandboxedIframes,MediaRouter,OptimizationHints,Translate",
    # The same page looks the same everywhere.
    "--lang=en-US",
    "--force-color-profile=srgb",
    "--force-device-scale-factor=1",
    "--font-render-hinting=none",
    "--hide-scrollbars",
)
PREFIX = "agentrl-browser-"


def find_executable(named: str | None = None) -> str:
    """Return the path of a browser: `named`, else that in the environment, else the first there is.

    Raises:
        UsageError: there is none, or none where one is named.
    """
    asked = named or os.environ.get(VARIABLE)
    if asked:
        found = shutil.which(asked)
        if found is None:
            source = "" if named else f", which ${VARIABLE} names"
            raise UsageError(f"no browser at {asked!r}{source}; name an executable, or none to look for one")
        return found
    for candidate in CANDIDATES:
        if found := shutil.which(candidate):
            return found
    cache = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH", Path.home() / ".cache" / "ms-playwright"))
    for pattern in PLAYWRIGHT:
        for path in sorted(cache.glob(pattern), reverse=True):
            return str(path)
    raise UsageError(MISSING)


class Chromium:
    """A browser's process group and profile folder."""

    def __init__(self, executable: str) -> None:
        """Start it; `end` is our end of the socket that it listens on."""
        sweep()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
        self.end, theirs = socket.socketpair()
        self.end.setblocking(False)
        with theirs, (self.folder / "stderr").open("wb") as stderr:
            self._process = subprocess.Popen(
                # It reads messages from descriptor 3, and writes them to 4.
                ["/bin/sh", "-c", 'exec "$@" 3<&0 4>&0 </dev/null', "sh", *self._command(executable)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env={**os.environ, "TZ": "UTC", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"},
                start_new_session=True,
            )
        self.kill = weakref.finalize(self, _kill, self._process, self.folder)

    def _command(self, executable: str) -> list[str]:
        return [executable, *FLAGS, f"--user-data-dir={self.folder / 'profile'}"]

    @property
    def pid(self) -> int:
        """Return the id of the process, which is that of its group."""
        return self._process.pid

    def last_words(self) -> str:
        """Return how it ended, and the end of what it wrote about it."""
        try:
            status = self._process.wait(2)
        except subprocess.TimeoutExpired:
            return "it closed the connection"
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        stderr = self.folder / "stderr"
        lines = stderr.read_text(errors="replace").splitlines() if stderr.is_file() else []
        words = [line for line in lines if "dbus" not in line][-3:]
        return "; ".join([how, *words])


def _kill(process: subprocess.Popen[bytes], folder: Path) -> None:
    """End the group, reap the process and delete the folder."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # Processes of the group may die a moment later, and write until then.
    for _ in range(3):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return


def sweep() -> list[Path]:
    """Delete and return the profile folders whose maker is no more."""
    swept = []
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        maker = folder.name.removeprefix(PREFIX).partition("-")[0]
        if maker.isdigit() and not Path(f"/proc/{maker}").exists() and _is_ours(folder):
            shutil.rmtree(folder, ignore_errors=True)
            swept.append(folder)
    return swept


def _is_ours(folder: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return folder.stat().st_uid == os.getuid()
    return False
