"""Normcore: gyms for the small, boring interactions that an agent has to get right every time.

    agentrl run --env normcore

Each gym is a small real web application with a database that logs every change to itself; a task specifies
which changes must happen and which may, and everything else is forbidden (`ledger`, `specification`).
Conditions make pages hard to use, seeded (`conditions`). Gyms are plugins (`gym`, `gyms`); `looking` is
what their experts see with. `testing` holds a gym to the rules of gyms, `playing` is what it plays them with.
"""

from .env import Normcore
from .gym import Gym, Problem, Refusal
from .specification import Pattern, Specification

__all__ = ["Gym", "Normcore", "Pattern", "Problem", "Refusal", "Specification"]
