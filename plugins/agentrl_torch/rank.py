"""The process of one rank: `python -m agentrl_torch.rank DESCRIPTOR`.

It does what comes through the pipe whose file descriptor is named, and answers. It ends when the pipe does,
whatever it is doing then, so that no rank outlives the run.
"""

import os
import queue
import signal
import sys
import threading
import traceback
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentrl.errors import AgentRLError, UsageError
from agentrl_torch.messages import UNREADABLE, Failure, Setup

if TYPE_CHECKING:
    from agentrl_torch.training import Training

# Exit code once nobody is left to answer.
_NOBODY_LEFT = 1
# What the rank's `training` writes as it is asked to; why it cannot is for the operating system to say.
_WRITING = frozenset({"write_weights", "write_frozen", "write_adapter", "save", "save_model"})
# What else it does.
_OF_TRAINING = frozenset({*_WRITING, "update", "rehearse", "load"})


def main(descriptor: int) -> None:
    """Serve until the pipe ends."""
    # Both reach all processes of a run at once, but when to stop is for the main process to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connection = Connection(descriptor)
    # What is imported there can be imported here, algorithms in a folder of the user's own included; where
    # this is another machine, packages may lie elsewhere.
    theirs = connection.recv()
    sys.path[:] = [*theirs, *(own for own in sys.path if own not in theirs)]
    # What libraries print would be in the midst of what the run shows.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, inbox), daemon=True).start()
    server, name = _Server(), ""
    while name != "close":
        name, arguments = inbox.get()
        connection.send(_attempt(server, name, arguments))


def _receive(connection: Connection, inbox: Any) -> None:
    try:
        while True:
            inbox.put(connection.recv())
    except (EOFError, OSError):
        os._exit(_NOBODY_LEFT)
    except Exception as error:  # such as an algorithm that cannot be imported here
        inbox.put(("refuse", (error,)))


def _attempt(server: "_Server", name: str, arguments: tuple[Any, ...]) -> Any:
    try:
        return getattr(server.training if name in _OF_TRAINING else server, name)(*arguments)
    except AgentRLError as error:
        return Failure(str(error), error)
    except OSError as error:
        return Failure(traceback.format_exc(), _plain(error) if name in _WRITING else None)
    except Exception:
        return Failure(traceback.format_exc())


def _plain(error: OSError) -> OSError:
    """Return the same without what libraries add to it, which may not survive being sent."""
    if error.errno is None:
        return OSError(str(error))
    return OSError(error.errno, error.strerror, error.filename)


class _Server:
    """What a rank can be asked to do, besides what its `training` can."""

    training: "Training"

    def begin(self, setup: Setup, model: Path | str, needs: Any, steps: int) -> int:
        """Meet the others, load the models, and return how many bytes the actor's weights are."""
        from agentrl_torch.training import Training
        from agentrl_torch.world import join

        device = setup.resources.device
        self._world = join(setup.rank, setup.ranks, setup.meeting_point, device)
        self.training = Training(setup.config, setup.sharding, self._world)
        self.training.start(model, needs, steps, setup.resources)
        size: int = self.training.bytes
        return size

    def prepare(self, batch: Any, needs: Any) -> Any:
        """Return what there is to know about the batch; all ranks know it, and the first is listened to."""
        self.training.prepare(batch, needs)
        return replace(batch, groups=[], minibatches=[]) if self._world.first else None

    def refuse(self, error: Exception) -> None:
        """Answer to what could not be read."""
        raise UsageError(UNREADABLE.format(error)) from error

    def close(self) -> None:
        """Leave the other ranks."""
        import torch.distributed

        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]))
