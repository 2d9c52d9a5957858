"""The process of a worker that is alone: `python -m agentrl_vllm.alone DESCRIPTOR`.

Messages come through the pipe whose file descriptor is named. It ends when the pipe does, whatever it is
doing then, so that no vLLM outlives the run.
"""

import os
import signal
import sys
import threading
from multiprocessing.connection import Connection

from agentrl_vllm.links import Queue
from agentrl_vllm.messages import Answer, Setup

# Exit code once nobody is left to answer.
_NOBODY_LEFT = 1


def main(descriptor: int) -> None:
    """Serve until the pipe ends."""
    # Ctrl-C reaches the whole group, but when to stop is for the other process to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection, inbox = Connection(descriptor), Queue()
    setup: Setup = connection.recv()
    # A thread of its own, so that who sends never waits for vLLM.
    threading.Thread(target=_receive, args=(connection, inbox), daemon=True).start()
    from transformers import AutoTokenizer

    from agentrl_vllm.working import Worker

    def answer(told: Answer) -> None:
        try:
            connection.send(told)
        except BrokenPipeError:  # nobody is there any more
            os._exit(_NOBODY_LEFT)

    Worker(inbox, answer, AutoTokenizer.from_pretrained(setup.model)).run(setup)


def _receive(connection: Connection, inbox: Queue) -> None:
    try:
        while True:
            inbox.messages.put(connection.recv())
    except (EOFError, OSError):
        os._exit(_NOBODY_LEFT)


if __name__ == "__main__":
    main(int(sys.argv[1]))
