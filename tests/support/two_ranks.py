"""Two ranks of a trainer as bare processes, without the main process that tells ranks what to do."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def in_two_ranks(program: str, folder: Path, *more: str) -> list[Any]:
    """Run a program twice, side by side, and return what each prints last, as JSON.

    Args:
        program: Python; its arguments are its rank, where the two meet, and `more`. It may import tests.
        folder: empty, for their meeting.
        more: what else it is told.
    """
    plugins = str(Path(__file__).parents[1] / "plugins")
    environment = {
        **os.environ,
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONPATH": os.pathsep.join([plugins, *sys.path]),
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(number), f"file://{folder / 'meeting'}", *more],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for number in range(2)
    ]
    printed = [rank.communicate()[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    return [json.loads(each.splitlines()[-1]) for each in printed]
