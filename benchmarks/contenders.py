"""Who takes part in `learning.py`: every algorithm that ships, and the variations worth a comparison."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Contender:
    """A way to learn.

    Attributes:
        name: in tables and folders.
        algorithm: what `--algo` is given.
        credit: who is compared with whom, in words.
        loss: of a token, in words.
        paper: where it is from.
        settings: further `--set`.
        envs: where it takes part; everywhere if empty.
        table: which table it stands in: only what stands in one table had the same tasks.
    """

    name: str
    algorithm: str
    credit: str
    loss: str
    paper: str
    settings: tuple[str, ...] = ()
    envs: tuple[str, ...] = ()
    table: str = "algorithms"


GROUP = "trajectory against its group"
CLIPPED = "clipped, token mean"
# Tasks of different difficulty, so that there is something to choose between.
HOPS = ("env.hops=[1,2,3,4]",)
HARDER = ("curriculum=harder_first", "curriculum.by=difficulty")
CONTENDERS = (
    Contender("grpo", "grpo", f"{GROUP}, by its deviation", CLIPPED, "2402.03300"),
    Contender("rloo", "rloo", f"{GROUP} without itself", CLIPPED, "2402.14740"),
    Contender("loop", "loop", f"{GROUP} without itself, small ones dropped", "clipped at 10%", "2502.01600"),
    Contender("dr_grpo", "dr_grpo", f"{GROUP}, no deviation", "clipped, constant length", "2503.20783"),
    Contender("reinforce_pp", "reinforce_pp", "return, whitened over the batch", CLIPPED, "2501.03262"),
    Contender("dapo", "dapo", f"{GROUP}; groups without signal are replaced", CLIPPED, "2503.14476"),
    Contender("gspo", "gspo", f"{GROUP}, by its deviation", "clipped ratio of the sequence", "2507.18071"),
    Contender("cispo", "cispo", f"{GROUP}, by its deviation", "clipped weight, all learn", "2506.13585"),
    Contender("salt", "salt", "GRPO, averaged over equal steps of the group", CLIPPED, "2510.20022"),
    Contender(
        "salt (rloo)", "salt", "RLOO, averaged over equal steps of the group", CLIPPED, "2510.20022",
        ("algorithm.base=rloo",),
    ),
    Contender("gigpo", "gigpo", "group, plus steps from equal states", CLIPPED, "2505.10978"),
    Contender("ppo", "ppo", "critic, token by token (GAE)", "clipped, with a critic's", "1707.06347"),
    Contender(
        "ppo (turn)", "ppo", "critic, turn by turn (GAE)", "clipped, with a critic's", "1707.06347",
        ("algorithm.gae=turn",),
    ),
    Contender(
        "uniform", "grpo", "GRPO on tasks as they come", CLIPPED, "",
        HOPS, ("deepsearch",), "curricula",
    ),
    Contender(
        "harder first", "grpo", "GRPO on tasks by signal coverage", CLIPPED, "",
        (*HOPS, *HARDER), ("deepsearch",), "curricula",
    ),
    Contender(
        "harder first, sizes too", "grpo", "the same, larger groups for harder ones", CLIPPED, "",
        (*HOPS, *HARDER, "curriculum.adapt_group_size=true"), ("deepsearch",), "curricula",
    ),
)  # fmt: skip
