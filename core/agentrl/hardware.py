"""What memory there is: of this machine, or of those that somebody describes.

Nothing heavy is imported: GPUs are asked for through the driver's program `nvidia-smi`.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from agentrl.errors import UsageError

GIB = 2**30
_LIMIT = Path("/sys/fs/cgroup/memory.max")
_TAKEN = Path("/sys/fs/cgroup/memory.current")
_TAKEN_FOR = Path("/sys/fs/cgroup/memory.stat")
_MEMORY = Path("/proc/meminfo")
_ASK = ("--query-gpu=memory.total", "--format=csv,noheader,nounits")
# Seconds; a driver in trouble may never answer.
_PATIENCE = 20.0


@dataclass(frozen=True, slots=True)
class Hardware:
    """The machines of a run, all alike.

    Attributes:
        gpus: bytes that each GPU of each machine has, machine after machine; None if nobody knows.
        memory: bytes of main memory of a machine; None if nobody knows.
        machines: how many there are.
        described: whether somebody has said so, and they are not the one that this is.
    """

    gpus: tuple[int, ...] | None
    memory: int | None
    machines: int = 1
    described: bool = False

    @property
    def each(self) -> int:
        """Return how many GPUs a machine has."""
        return len(self.gpus or ()) // self.machines

    def __str__(self) -> str:
        sizes = {round(size / GIB) for size in self.gpus or ()}
        gpus = f"{self.each} GPUs of {'/'.join(map(str, sorted(sizes)))} GiB" if sizes else "no GPU"
        gpus = gpus.replace("1 GPUs", "1 GPU") if self.each == 1 else gpus
        memory = f", {self.memory / GIB:.0f} GiB of main memory" if self.memory else ""
        where = "this machine" if not self.described else "one machine"
        return f"{where if self.machines == 1 else f'{self.machines} machines, each'}: {gpus}{memory}"


def here() -> Hardware:
    """Return what this machine has, within a container's limit."""
    return Hardware(gpus(), main_memory())


def parse(text: str, memory: float | None = None) -> Hardware:
    """Return what `text` describes: "80" a GPU of 80 GB, "8x80" eight, "4x8x80" four machines of these.

    Args:
        text: the GPUs.
        memory: main memory of a machine, in GB; None if nobody knows.

    Raises:
        UsageError: it says something else.
    """
    match = re.fullmatch(r"(?:(?:(\d+)x)?(\d+)x)?(\d+(?:\.\d+)?)(?:GB|GiB)?", text.strip(), re.IGNORECASE)
    machines, each, size = (match[1] or 1, match[2] or 1, match[3]) if match else (0, 0, 0)
    if not int(machines) or not int(each) or not float(size):
        raise UsageError(
            f"--gpus {text!r} describes no GPUs; say it as [[MACHINES x] GPUS x] GB: 80, 8x80 or 4x8x80"
        )
    count = int(machines) * int(each)
    whole = None if memory is None else int(memory * GIB)
    return Hardware((int(float(size) * GIB),) * count, whole, int(machines), described=True)


def main_memory() -> int | None:
    """Return the bytes of main memory that there are; None if it cannot be told."""
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
    try:
        limit = _LIMIT.read_text().strip()
    except OSError:  # no control group, or not of version 2
        return whole
    return min(whole, int(limit)) if limit.isdigit() else whole


def free_memory() -> int | None:
    """Return the bytes of main memory that nobody has; None if it cannot be told."""
    whole = main_memory()
    try:
        free = _sizes(_MEMORY.read_text()).get("MemAvailable")
    except OSError:  # not Linux
        free = None
    if free is None or whole is None:
        return None
    try:
        # What was read of files can go at any time.
        taken = int(_TAKEN.read_text()) - _sizes(_TAKEN_FOR.read_text())["inactive_file"]
    except OSError:  # no control group, or not of version 2
        return min(free * 1024, whole)
    return max(0, min(free * 1024, whole - taken))


def _sizes(text: str) -> dict[str, int]:
    """Return the numbers of a file of the operating system that has a name and a number in each line."""
    return {name.rstrip(":"): int(number) for name, number, *_ in map(str.split, text.splitlines())}


def gpus() -> tuple[int, ...] | None:
    """Return the bytes that each GPU has; None if the driver does not say."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None if Path("/dev/nvidiactl").exists() else ()
    try:
        asked = subprocess.run(
            [program, *_ASK], capture_output=True, text=True, timeout=_PATIENCE, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return _visible([int(line) * 2**20 for line in asked.stdout.split() if line.isdigit()])


def _visible(sizes: list[int]) -> tuple[int, ...]:
    """Return those that this process may use; names that are no numbers leave the choice open."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None or not all(each.strip().isdigit() for each in named.split(",") if each):
        return tuple(sizes)
    wanted = [int(each) for each in named.split(",") if each]
    return tuple(sizes[each] for each in wanted if each < len(sizes))
