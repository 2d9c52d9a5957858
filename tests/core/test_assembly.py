"""What an algorithm needs is there before anything starts, or the run is refused in one sentence."""

import pytest

from agentrl import Algorithm, Env, Trainer, UsageError
from agentrl.assembly import check_needs
from agentrl.config import resolve


class Needy(Algorithm):
    credit = loss = None
    wanted = frozenset()

    @property
    def needs(self):
        return self.wanted


Needy.__abstractmethods__ = frozenset()


class Bare(Trainer):
    provides = frozenset({"reference"})


Bare.__abstractmethods__ = frozenset()


class Blind(Env):
    pass


class Seeing(Env):
    provides = frozenset({"step_keys"})


def check(*needs, env=Blind, **flags):
    algorithm = Needy()
    algorithm.wanted = frozenset(needs)
    config = resolve({}, {"env": "deepsearch", **flags}, [])
    return check_needs(algorithm, Bare(), env, config)


def test_what_is_needed_and_there_is_returned():
    assert check("reference", "groups") == {"reference", "groups"}
    assert check("step_keys", env=Seeing) == {"step_keys"}


@pytest.mark.parametrize(
    ("needs", "flags", "message"),
    [
        (["values"], {}, "needs values, which the trainer 'torch' does not provide"),
        (["values", "logprobs"], {}, "needs logprobs, values, which"),
        (
            ["groups"],
            {"group_size": 1},
            "compares the trajectories of a group, so group_size must be at least 2",
        ),
        (["demonstrations"], {}, "learns from demonstrations, not from what the model plays"),
        (["step_keys"], {}, "needs step_keys, but the env 'deepsearch' does not name its states"),
    ],
)
def test_what_is_missing_is_said_with_who_lacks_it(needs, flags, message):
    with pytest.raises(UsageError, match=message):
        check(*needs, **flags)
