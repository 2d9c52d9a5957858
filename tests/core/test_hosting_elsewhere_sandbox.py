"""Attacks by code that runs in a world: each works without the sandbox, and fails in it.

The world does whatever an action says, as if a model had found a way around every check of its code.
"""

import asyncio
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

import pytest

from agentrl import Action, Environment, PluginConfig, RemoteEnv, Sandbox, Task, UsageError
from agentrl.hosting import WorkerDied
from agentrl.hosting.elsewhere import RemotePool, sandbox, site_of
from agentrl.hosting.elsewhere.enclosure import REFUSED, call_filter
from processes import wait_for

T = TypeVar("T")

WORLD = """
import ctypes, os, pathlib, socket, subprocess, sys, tempfile, threading, time

libc = ctypes.CDLL(None, use_errno=True)


def reset(task, seed, config):
    return "ready"


def step(action):
    global loot
    loot = None
    try:
        exec(action["text"], globals())
    except BaseException as error:
        return "%s: %s" % (type(error).__name__, error)
    return {"text": repr(loot), "record": {"said": 1}}


def judge():
    return True
"""
JUDGE = """
def judge(task, seed, records, config):
    return {"success": all(record["said"] == 1 for record in records)}
"""
TASK = Task("steal")
SECRET = "the answer is 42"
COLUMN = 0 if platform.machine() == "x86_64" else 1


class Walled(RemoteEnv):
    """Does what the action says, in a sandbox."""

    class Config(PluginConfig):
        """Options."""

        sandbox: bool = True

    environment: ClassVar[Environment] = Environment(
        worker="world.py",
        judge="justice.py",
        memory_mb=512,
        said_mb=4,
        sandbox=Sandbox(readable=("{files}/play",), writable=("{files}/play_out",), disk_mb=8),
    )

    def tasks(self, split: str) -> Sequence[Task]:
        return [TASK]


class Lenient(Walled):
    """Lets episodes start programs."""

    environment: ClassVar[Environment] = Environment(worker="world.py", sandbox=Sandbox(programs=True))


class Hiding(Walled):
    """Shows a folder in which something lies that episodes must not see."""

    environment: ClassVar[Environment] = Environment(
        worker="world.py",
        sandbox=Sandbox(readable=("{files}/play",), hidden=("{files}/play/truth", "/no/such")),
    )


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pretend that the environments of the envs above are set up, with a truth beside what is played on."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SOME_API_KEY", SECRET)
    (tmp_path / "world.py").write_text(WORLD)
    (tmp_path / "justice.py").write_text(JUDGE)
    monkeypatch.setattr("agentrl.hosting.elsewhere.site._folder_of", lambda env: tmp_path)
    site = site_of(Walled)
    secrets = [site.files / "truth", tmp_path / "home", tmp_path / "run"]
    for needed in (site.python.parent, site.files / "play", site.files / "play_out", *secrets):
        needed.mkdir(parents=True)
    for place in secrets:
        (place / "answer.txt").write_text(SECRET)
    (site.files / "play" / "question.txt").write_text("what is six times seven?")
    site.python.symlink_to(sys.executable)
    (site.folder / "done.json").write_text(json.dumps(site.titles))
    return tmp_path


@pytest.fixture
def walls() -> None:
    """Skip the test where there can be no sandbox."""
    try:
        sandbox.check(site_of(Walled, "walled"), Sandbox())
    except UsageError as error:
        pytest.skip(str(error))


def play(body: Callable[[RemotePool], Awaitable[T]], env: RemoteEnv, size: int = 2) -> T:
    async def run() -> T:
        # Attacks that hang do not end by themselves.
        pool = RemotePool(env, size, close_seconds=2.0)
        try:
            return await body(pool)
        finally:
            await pool.close()

    return asyncio.run(asyncio.wait_for(run(), 120))


def loot(*said: str, env: type[RemoteEnv] = Walled, walled: bool = True) -> list[str]:
    """Return what an episode in which this is done tells."""

    async def body(pool: RemotePool) -> list[str]:
        async with pool.lease() as playing:
            await playing.reset(TASK, 1)
            return [(await playing.step(Action(text))).text for text in said]

    return play(body, env(env.Config(sandbox=walled)))


def both(attack: str) -> tuple[str, str]:
    """Return what an attack gets without the sandbox, and in it."""
    return loot(attack, walled=False)[0], loot(attack)[0]


# Files


def test_what_was_declared_can_be_read_and_used(walls: None) -> None:
    (seen,) = loot("loot = open('play/question.txt').read()")
    assert seen == repr("what is six times seven?")
    threads = "t = threading.Thread(target=lambda: globals().update(loot=7)); t.start(); t.join()"
    loop = "import asyncio; loot = asyncio.run(asyncio.sleep(0, 8))"
    files = "f = tempfile.NamedTemporaryFile('w+'); f.write('9'); f.seek(0); loot = f.read()"
    home = "p = pathlib.Path.home() / 'x'; p.write_text('1'); loot = p.read_text()"
    database = "import sqlite3; loot = sqlite3.connect('play_out/d').execute('select 1').fetchone()"
    assert loot(threads, loop, files, home, database) == ["7", "8", "'9'", "'1'", "(1,)"]


def test_the_truth_cannot_be_read_by_its_path(walls: None, folder: Path) -> None:
    truth = site_of(Walled).files / "truth" / "answer.txt"
    paths = (truth, folder / "home" / "answer.txt", folder / "run" / "answer.txt")
    below = ("truth/answer.txt", "../files/truth/answer.txt", "play/../truth/answer.txt")
    for path in (*below, *map(str, paths)):
        outside, inside = both(f"loot = open({path!r}).read()")
        assert outside == repr(SECRET)
        assert inside.startswith("FileNotFoundError"), inside


def test_what_is_hidden_in_a_folder_that_can_be_read_is_an_empty_folder(walls: None) -> None:
    place = site_of(Hiding).files / "play" / "truth"
    place.mkdir(parents=True)
    (place / "answer.txt").write_text(SECRET)
    look = f"loot = [str(p.name) for p in pathlib.Path('{place.parent}').rglob('*')]"
    (seen,) = loot(look, env=Hiding)
    assert sorted(eval(seen)) == ["question.txt", "truth"]
    (said,) = loot(f"pathlib.Path('{place}/mine').write_text('x')", env=Hiding)
    assert "Read-only file system" in said


def test_nothing_of_home_cache_and_other_programs_is_there(walls: None, folder: Path) -> None:
    hidden = [str(path) for path in (folder, folder / "home", folder / "run", Path.cwd() / "pyproject.toml")]
    hidden += ["/etc/passwd", "/proc/self", "/sys/kernel", "/var", "/run"]
    attack = f"loot = [p for p in {hidden} if os.path.exists(p) and os.path.basename(p) != {folder.name!r}]"
    outside, inside = both(attack)
    assert len(json.loads(outside.replace("'", '"'))) > 3
    assert inside == "[]"
    (seen,) = loot(f"loot = sorted(os.listdir({str(folder)!r}))")
    assert seen == "['cache', 'world.py']"


def test_nothing_can_be_written_that_another_episode_sees(walls: None) -> None:
    mark = """
written = []
for place, folders, files in os.walk('/'):
    if place.startswith(('/usr', '/root', '/opt')) and len(place.split('/')) > 3:
        folders.clear()
        continue
    try:
        open(os.path.join(place, 'mark'), 'w').write('I was here')
        written.append(place)
    except OSError:
        pass
loot = sorted(written)
"""
    find = "loot = sorted(p for p, d, f in os.walk('/') if 'mark' in f and not p.startswith('/usr'))"

    async def body(pool: RemotePool) -> list[str]:
        async with pool.lease() as first, pool.lease() as second:
            await first.reset(TASK, 1)
            await second.reset(TASK, 1)
            seen = [(await first.step(Action(mark))).text, (await second.step(Action(find))).text]
            seen.append((await first.step(Action(find))).text)
        async with pool.lease() as third:
            await third.reset(TASK, 1)
            return [*seen, (await third.step(Action(find))).text]

    written, sibling, own, later = play(body, Walled(Walled.Config()))
    assert written == own == repr(sorted(["/scratch", str(site_of(Walled).files / "play_out")]))
    assert sibling == later == "[]"


def test_a_disk_bomb_fills_its_own_little_disk_only(walls: None) -> None:
    for place in ("play_out/bomb", "/scratch/bomb"):
        attack = f"f = open({place!r}, 'wb', 0)\nfor n in range(99): f.write(bytes(1 << 20)); loot = n"
        assert "No space left" in loot(attack)[0]
    many = "for n in range(100000): open('play_out/%d' % n, 'w').close()"
    assert "No space left" in loot(many)[0]
    assert not list((site_of(Walled).files / "play_out").iterdir())


def test_devices_cannot_be_changed_for_others(walls: None) -> None:
    mode = os.stat("/dev/null").st_mode
    assert loot("os.chmod('/dev/null', 0)")[0].startswith("OSError: [Errno 30]")
    assert os.stat("/dev/null").st_mode == mode
    assert loot("open('/dev/null', 'w').write('x'); loot = len(open('/dev/urandom', 'rb').read(3))") == ["3"]


def test_nobodys_files_are_inherited(walls: None) -> None:
    attack = """
import stat
loot = []
for number in range(3, 4096):
    try:
        mode = os.fstat(number).st_mode
    except OSError:
        continue
    loot.append('socket' if stat.S_ISSOCK(mode) else os.readlink('/proc/self/fd/%d' % number))
"""
    assert loot(attack) == ["['socket']"]


# Environment, network


def test_our_environment_variables_are_out_of_sight(walls: None) -> None:
    outside, inside = both("loot = os.environ.get('SOME_API_KEY')")
    assert (outside, inside) == (repr(SECRET), "None")
    assert SECRET not in loot("loot = dict(os.environ)")[0]
    memory = "loot = [p for p in range(99) if os.path.exists('/proc/%d/environ' % p)]"
    assert loot(memory) == ["[]"]


@pytest.fixture
def listener() -> Iterator[tuple[int, str]]:
    """Listen on a port of this machine and on a name of this machine."""
    name = f"agentrl-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as local:
        local.bind("\0" + name)
        local.listen()
        yield tcp.getsockname()[1], name


def test_nobody_can_be_talked_to(walls: None, listener: tuple[int, str]) -> None:
    port, name = listener
    for attack in (
        f"loot = bool(socket.create_connection(('127.0.0.1', {port}), 2))",
        f"s = socket.socket(socket.AF_UNIX); s.connect('\\0{name}'); loot = True",
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); loot = True",
        "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); a.bind('\\0here'); loot = True",
    ):
        outside, inside = both(attack)
        assert outside == "True", outside
        assert "Operation not permitted" in inside, inside
    assert "gaierror" in loot("loot = socket.getaddrinfo('example.com', 80)")[0]


# Processes


def test_no_process_can_be_made(walls: None) -> None:
    for attack in (
        "pid = os.fork()\nif pid == 0: os._exit(7)\nloot = os.waitpid(pid, 0)[1] >> 8",
        "loot = subprocess.run(['/bin/sh', '-c', 'exit 7']).returncode",
        "loot = os.posix_spawn('/bin/true', ['true'], {}) and 7",
        "loot = os.system('exit 7') >> 8",
    ):
        outside, inside = both(attack)
        assert outside == "7", outside
        assert "not permitted" in inside or inside == "127", inside
    bomb = "for n in range(1000):\n  try: os.fork()\n  except OSError as e: loot = e.errno"
    assert loot(bomb) == ["1"]
    replaced = "os.execv('/bin/sh', ['sh', '-c', 'sleep 60'])"
    assert "not permitted" in loot(replaced)[0]


def test_the_kernel_refuses_what_no_world_needs(walls: None) -> None:
    numbers = {name: pair[COLUMN] for name, pair in REFUSED.items()}
    attack = f"""
loot = {{}}
for name, number in {numbers}.items():
    ctypes.set_errno(0)
    loot[name] = (libc.syscall(number, *[ctypes.c_long(-1)] * 6), ctypes.get_errno())
"""
    (inside,) = loot(attack)
    assert inside == repr(dict.fromkeys(numbers, (-1, 1)))


def test_calls_by_other_numbers_end_the_episode(walls: None) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("only x86_64 has other numbers")
    with pytest.raises(WorkerDied, match="SIGSYS"):
        loot("libc.syscall(0x40000000 + 41, 1, 1, 0)")


def test_a_memory_bomb_ends_at_its_limit(walls: None) -> None:
    assert loot("loot = len(bytearray(1 << 30))")[0].startswith("MemoryError")
    assert "not permitted" in loot("os.memfd_create('bomb')")[0]


def test_others_can_be_neither_signalled_nor_looked_into(walls: None) -> None:
    kill = """
loot = []
for pid in [*range(2, 3000), {pids}]:
    try:
        os.kill(pid, 9)
        loot.append(pid)
    except (ProcessLookupError, PermissionError):
        pass
try:
    os.kill(-1, 9)
    loot.append(-1)
except ProcessLookupError:
    pass
"""

    async def body(pool: RemotePool) -> tuple[str, str]:
        async with pool.lease() as first, pool.lease() as second:
            await first.reset(TASK, 1)
            await second.reset(TASK, 1)
            assert pool.zygote is not None
            pids = f"{os.getpid()}, {pool.zygote.pid}"
            killed = (await first.step(Action(kill.format(pids=pids)))).text
            return killed, (await second.step(Action("loot = 'alive'"))).text

    assert play(body, Walled(Walled.Config())) == ("[]", "'alive'")
    assert both("loot = os.kill(os.getppid() or 2, 0) is None") == (
        "True",
        "ProcessLookupError: [Errno 3] No such process",
    )
    attach = "loot = libc.ptrace(16, os.getppid() or 1, 0, 0), ctypes.get_errno()"
    assert loot(attach) == ["(-1, 1)"]


def test_a_program_that_leaves_its_session_ends_with_its_episode(walls: None, folder: Path) -> None:
    def alive(mark: str) -> bool:
        return (
            subprocess.run(
                ["pgrep", "-f", f"sleep {mark}$"], stdout=subprocess.DEVNULL, check=False
            ).returncode
            == 0
        )

    daemon = "subprocess.Popen(['/bin/sh', '-c', 'setsid sleep {} &'], start_new_session=True).wait()"

    async def body(pool: RemotePool) -> None:
        async with pool.lease() as playing:
            await playing.reset(TASK, 1)
            await playing.step(Action(daemon.format(mark)))
            wait_for(lambda: alive(mark))
        wait_for(lambda: not alive(mark))

    mark = f"86400.{os.getpid()}"
    play(body, Lenient(Lenient.Config()))


def test_all_that_is_inside_ends_when_the_worker_is_killed(walls: None) -> None:
    def descendants(pid: int) -> list[int]:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [each for child in map(int, children) for each in (child, *descendants(child))]

    async def body(pool: RemotePool) -> None:
        async with pool.lease() as playing:
            await playing.reset(TASK, 1)
            assert pool.zygote is not None
            assert pool.zygote.pid is not None
            inside = descendants(pool.zygote.pid)
            assert len(inside) == 3  # the first process in there, the worker, the episode
            os.kill(pool.zygote.pid, 9)
            wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in inside))

    play(body, Walled(Walled.Config()))


# The channel, and the next episode


def test_patched_builtins_are_whole_in_the_next_episode(walls: None) -> None:
    patch = "import builtins, json; builtins.print = builtins.len = None; json.dumps = lambda *a, **k: '{}'"

    async def body(pool: RemotePool) -> str:
        async with pool.lease() as first:
            await first.reset(TASK, 1)
            with pytest.raises(WorkerDied):
                await first.step(Action(patch))
        async with pool.lease() as second:
            await second.reset(TASK, 1)
            return (await second.step(Action("import builtins; print('x'); loot = len('four')"))).text

    assert play(body, Walled(Walled.Config())) == "4"


CHANNEL = "import gc; channel = [o.channel for o in gc.get_objects() if type(o).__name__ == 'Episode'][0]\n"


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        ("channel.close()", "ended"),
        ("channel.sendall(b'\\xff' * 64)", "broke the protocol"),
        ("channel.sendall(b'\\0\\0\\0\\2[]')", "broke the protocol"),
        ("b = b'[' * 100000; channel.sendall(len(b).to_bytes(4, 'big') + b)", "broke the protocol"),
        ("channel.sendall((100 << 20).to_bytes(4, 'big'))", "said_mb"),
        ("loot = 'x' * (5 << 20)", "said_mb"),
    ],
)
def test_nonsense_on_the_channel_costs_its_episode_only(walls: None, attack: str, said: str) -> None:
    async def body(pool: RemotePool) -> str:
        async with pool.lease() as sibling:
            await sibling.reset(TASK, 1)
            async with pool.lease() as playing:
                await playing.reset(TASK, 1)
                with pytest.raises(WorkerDied, match=said):
                    await playing.step(Action(CHANNEL + attack))
            return (await sibling.step(Action("loot = 'alive'"))).text

    assert play(body, Walled(Walled.Config())) == "'alive'"


@pytest.mark.parametrize("record", ["None", "[]", "{'said': [[[]]]}", "'x'", "{'said': 2}"])
def test_a_forged_record_never_makes_a_success(walls: None, record: str) -> None:
    observation = "{'text': '', 'done': True, 'state_key': None, 'action_key': None, 'record': %s}"
    reply = f"{{'id': 2, 'result': {observation}}}"
    forge = f"""
import json
body = json.dumps({reply % record}).encode()
channel.sendall(len(body).to_bytes(4, 'big') + body)
time.sleep(60)
"""

    async def body(pool: RemotePool) -> bool:
        async with pool.lease() as playing:
            await playing.reset(TASK, 1)
            assert (await playing.step(Action(CHANNEL + forge))).done
            try:
                return (await playing.judge()).success
            except Exception:
                return False

    assert not play(body, Walled(Walled.Config()))


# With and without


def test_without_bwrap_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match=r"apt-get install bubblewrap; --set env\.sandbox=false plays"):
        RemotePool(Walled(Walled.Config()), name="walled")


def test_where_there_can_be_no_sandbox_the_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "bwrap"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'No permissions to create new namespace' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    with pytest.raises(UsageError, match=r"cannot make here \(No permissions to create new namespace\)"):
        RemotePool(Walled(Walled.Config()), name="walled")


def test_who_plays_without_the_sandbox_is_warned_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    assert loot("loot = 1", walled=False) == ["1"]
    assert [record.getMessage() for record in caplog.records if "without its sandbox" in record.getMessage()]


def test_a_filter_of_calls_is_there_for_both_kinds_of_machine() -> None:
    for machine in ("x86_64", "aarch64"):
        strict, lenient = (call_filter(machine, programs=programs) for programs in (False, True))
        assert len(strict) % 8 == len(lenient) % 8 == 0
        assert len(strict) > len(lenient)
    with pytest.raises(OSError, match="no filter"):
        call_filter("abacus", programs=False)
