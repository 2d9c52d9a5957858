"""What an episode's process gives up before the world plays in it. Linux, standard library only.

Runs beside `worker`, inside the walls that `sandbox` puts around it. An `Enclosure` forks each episode as
the first process of a process namespace of its own: it sees and signals nobody else, and when it ends, the
kernel ends all that it has started. Then the episode gets folders of its own in place of those it may write
to, gives up its capabilities, and asks the kernel to refuse the calls in `REFUSED`.

Run as a program, with a rule as JSON, it tries this once: exit code 0 says that it can be done here.
"""

import ctypes
import errno
import json
import os
import platform
import resource
import struct
import sys
from typing import Any, Dict, Iterator, Sequence, Tuple  # noqa: UP035 - valid on Python 3.9

# Numbers of system calls on x86_64 and on aarch64; None where there is no such call.
_Numbers = Tuple[Any, Any]  # noqa: UP006

# What makes processes, as long as the world may not start programs. Threads are `clone`, see `_clone_rule`.
_PROGRAMS: Dict[str, _Numbers] = {  # noqa: UP006
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
}
REFUSED: Dict[str, _Numbers] = {  # noqa: UP006
    # Who could talk to others; pairs of connected sockets remain.
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    # Memory that no limit counts.
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    # Other processes.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    # Ways to another view of the system, and files by other ways than their names.
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    # Parts of the kernel with a history of holes, which no world needs.
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}
_CLONE, _CLONE3, _SOCKETPAIR, _CAPSET = (56, 220), (435, 435), (53, 199), (126, 91)
_PIDFD_OPEN = 434
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_X32_CALLS = 0x40000000  # x86_64 knows its calls by other numbers, too

_CLONE_THREAD, _CLONE_NEWNS, _CLONE_NEWPID, _CLONE_NEWNET = 0x10000, 0x20000, 0x20000000, 0x40000000
_CLONE_NEW = 0x7E020000  # any namespace
_MS_PRIVATE_REC = 0x4000 | 0x40000
_MS_NOSUID_NODEV_NOEXEC = 2 | 4 | 8
_MS_REMOUNT_BIND_RDONLY = 32 | 4096 | 1
_MS_RELATIME, _ST_RELATIME = 1 << 21, 4096
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_FILTER = 38, 22, 2
_CAPABILITY_VERSION = 0x20080522

# Instructions of the packet filter that looks at each call.
_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_CALL, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000

_OPEN_FILES = 1024
_THREADS = 4096  # of all episodes together, where the kernel counts them: not those of root
_FILES_A_MEGABYTE = 256  # on a private folder: names cost memory, too

_libc = ctypes.CDLL(None, use_errno=True)


class Enclosure:
    """Forks processes that can reach nobody, and encloses them."""

    def __init__(self, rule: Dict[str, Any]) -> None:  # noqa: UP006
        """Take "devices" that are there, "private" folders, their "disk_mb", and whether "programs" may run.

        Raises:
            OSError: the machine is of a kind for which there is no filter.
        """
        self.rule = rule
        self.filter = call_filter(platform.machine(), programs=rule["programs"])
        self.own = _libc.syscall(_PIDFD_OPEN, os.getpid(), 0)  # not every Python has it
        _must(self.own, "a handle of this process")

    def fork(self) -> int:
        """Fork the first process of a process namespace of its own; return as `os.fork` does."""
        _must(_libc.unshare(_CLONE_NEWPID), "a process namespace")
        pid = -1
        try:
            pid = os.fork()
        finally:
            if pid != 0:
                _must(_libc.setns(self.own, _CLONE_NEWPID), "the own process namespace")
        return pid

    def enter(self) -> None:
        """Give up, for this process and for good, what no episode needs."""
        os.close(self.own)
        _must(_libc.unshare(_CLONE_NEWNS | _CLONE_NEWNET), "a view of the files")
        _must(_libc.mount(b"none", b"/", None, _MS_PRIVATE_REC, None), "a view of the files")
        for device in self.rule["devices"]:
            _protect(device)
        for folder in self.rule["private"]:
            _private(folder, self.rule["disk_mb"])
        os.chdir(os.getcwd())  # where a private folder may lie now
        _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
        _limit(resource.RLIMIT_NPROC, _THREADS)
        _drop_capabilities()
        _must(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "to give up privileges")
        _install(self.filter)


def call_filter(machine: str, *, programs: bool) -> bytes:
    """Return the filter that refuses an episode's calls, as the kernel takes it.

    Raises:
        OSError: there is none for such a machine.
    """
    if machine not in _ARCHITECTURES:
        raise OSError(errno.ENOSYS, "no filter of system calls for " + machine)
    column, architecture = _ARCHITECTURES[machine]
    refused = REFUSED if programs else {**REFUSED, **_PROGRAMS}
    return b"".join(
        [
            _code(_LOAD, _ARCHITECTURE),
            _code(_EQUAL, architecture, 1, 0),
            _code(_RETURN, _KILL),
            _code(_LOAD, _CALL),
            _code(_AT_LEAST, _X32_CALLS, 0, 1),
            _code(_RETURN, _KILL),
            *_clone_rule(_CLONE[column], programs),
            # A filter cannot see into its arguments; without it the C library takes `clone`.
            *_rule(_CLONE3[column], errno.ENOSYS),
            *_pair_rule(_SOCKETPAIR[column]),
            *(
                code
                for numbers in refused.values()
                if numbers[column] is not None
                for code in _rule(numbers[column], errno.EPERM)
            ),
            _code(_RETURN, _ALLOW),
        ]
    )


def _code(operation: int, value: int, jump: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("=HBBI", operation, jump, otherwise, value)


def _rule(number: int, error: int) -> Iterator[bytes]:
    """Refuse a call."""
    yield _code(_EQUAL, number, 0, 1)
    yield _code(_RETURN, _ERRNO | error)


def _clone_rule(number: int, programs: bool) -> Iterator[bytes]:
    """Let threads be made, and processes if programs may run, but no namespaces."""
    flags, allowed = (_CLONE_NEW, 0) if programs else (_CLONE_THREAD | _CLONE_NEW, _CLONE_THREAD)
    yield _code(_EQUAL, number, 0, 5)
    yield _code(_LOAD, _FIRST_ARGUMENT)
    yield _code(_AND, flags)
    yield _code(_EQUAL, allowed, 0, 1)
    yield _code(_RETURN, _ALLOW)
    yield _code(_RETURN, _ERRNO | errno.EPERM)


def _pair_rule(number: int) -> Iterator[bytes]:
    """Let pairs of local sockets be made, and no others."""
    yield _code(_EQUAL, number, 0, 4)
    yield _code(_LOAD, _FIRST_ARGUMENT)
    yield _code(_EQUAL, 1, 0, 1)
    yield _code(_RETURN, _ALLOW)
    yield _code(_RETURN, _ERRNO | errno.EPERM)


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("codes", ctypes.c_char_p)]


def _install(codes: bytes) -> None:
    program = _Program(len(codes) // 8, codes)
    _must(_libc.prctl(_PR_SET_SECCOMP, _SECCOMP_FILTER, ctypes.byref(program), 0, 0), "a filter of calls")


def _limit(what: int, most: int) -> None:
    allowed = resource.getrlimit(what)[1]
    limit = most if allowed == resource.RLIM_INFINITY else min(most, allowed)
    resource.setrlimit(what, (limit, limit))


def _private(folder: str, megabytes: int) -> None:
    """Put an empty folder of this process alone in place of a folder."""
    options = "mode=700,size=%dm,nr_inodes=%d" % (megabytes, megabytes * _FILES_A_MEGABYTE)  # noqa: UP031
    arguments = (b"tmpfs", os.fsencode(folder), b"tmpfs", _MS_NOSUID_NODEV_NOEXEC, options.encode())
    _must(_libc.mount(*arguments), "a private " + folder)


def _protect(device: str) -> None:
    """Let a device be used, but not be changed for all others, whose owner we may be."""
    flags = os.statvfs(device).f_flag  # what is forbidden already cannot be allowed again
    relative = _MS_RELATIME if flags & _ST_RELATIME else 0
    kept = (flags & ~_ST_RELATIME) | relative | _MS_REMOUNT_BIND_RDONLY
    _must(_libc.mount(None, os.fsencode(device), None, kept, None), "a protected " + device)


def _drop_capabilities() -> None:
    number = _CAPSET[_ARCHITECTURES[platform.machine()][0]]
    header, none = struct.pack("=Ii", _CAPABILITY_VERSION, 0), bytes(24)
    _must(_libc.syscall(number, header, none), "to give up capabilities")


def _must(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, "no permission for " + what + ": " + os.strerror(number))


def main(arguments: Sequence[str]) -> int:
    """Try it with the rule in `arguments`; return 0 if it can be done here."""
    enclosure = Enclosure(json.loads(arguments[0]))
    pid = enclosure.fork()
    if pid == 0:
        try:
            enclosure.enter()
            os._exit(0)
        except OSError as error:
            print(error, file=sys.stderr, flush=True)
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
