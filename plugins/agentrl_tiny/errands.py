"""Errand drills: what gives the small transformer the habit of writing what it was told into code.

Somebody asks for something with a few details, and the answer is a call with these details as arguments:

    I am Ada Lake, ada.lake@example.com, 5554071233.
    mark alarm venmo: note "red kite", city (17:45).
    -> apis.venmo.mark_alarm(note="red kite", city="17:45", access_token=venmo_token)

Words are drawn by chance and mean nothing, so that nothing can be learnt by heart: which detail is which must
be read, and its value copied. Shapes: B rows of a batch, T tokens.
"""

import random
from collections.abc import Callable
from typing import Any

from torch import Tensor

from .demonstrations import padded
from .tokenizer import group

# How a detail is said, and how it is written as an argument.
Detail = tuple[str, str]
FENCE = "```python\n{}\n```"
DONE = "Output:\n```\nExecution successful.\n```"


class Errands:
    """Makes errands, each another one, of words without spaces."""

    def __init__(self, chance: random.Random) -> None:
        """Take the chance that draws the words."""
        self.chance = chance
        self.words, self.things, self.first_names, self.last_names = (
            group(name) for name in ("words", "things", "first", "last")
        )
        self._kinds: tuple[Callable[[], Detail], ...] = (
            self._thing, self._thing, self._thing, self._word, self._time, self._amount, self._path,
            self._path, self._mail, self._number,
        )  # fmt: skip

    def batch(self, tokenizer: Any, size: int) -> tuple[Tensor, Tensor]:
        """Return ids and the mask of what is to be learnt, both (B, T), padded on the right."""
        return padded(tokenizer, [self.dialogue() for _ in range(size)])

    def dialogue(self) -> list[tuple[str, str]]:
        """Return what is said and what is to be answered, turn by turn."""
        app, verb, noun = (self._draw() for _ in range(3))
        fields = self.chance.sample(self.words, self.chance.choice((1, 2, 2, 3)))
        details = [self.chance.choice(self._kinds)() for _ in fields]
        said = [f"{field} {value}" for field, (value, _) in zip(fields, details, strict=True)]
        request = f"{verb} {noun} {app}: {', '.join(said)}."
        arguments = [f"{field}={value}" for field, (_, value) in zip(fields, details, strict=True)]
        call = f"apis.{app}.{verb}_{noun}({', '.join([*arguments, f'access_token={app}_token'])})"
        asked = f"{self._introduction()}\n{request}"
        if self.chance.random() < 0.5:
            return [(asked, FENCE.format(call))]
        login = f"{app}_token = apis.{app}.login(username=me)"
        return [(asked, FENCE.format(login)), (DONE, FENCE.format(call))]

    def _introduction(self) -> str:
        first = self.chance.choice(self.first_names)
        last = self.chance.choice(self.last_names)
        number = self.chance.randrange(5_550_000_000, 5_559_999_999)
        return f"I am {first.title()} {last.title()}, {first}.{last}@example.com, {number}."

    def _draw(self) -> str:
        return self.chance.choice(self.words)

    def _thing(self) -> Detail:
        value = f'"{" ".join(self.chance.choices(self.things, k=2))}"'
        return value, value

    def _word(self) -> Detail:
        value = f'"{self.chance.choice(self.things)}"'
        return value, value

    def _time(self) -> Detail:
        value = f"{self.chance.randrange(24):02d}:{self.chance.randrange(60):02d}"
        return f"({value})", f'"{value}"'

    def _amount(self) -> Detail:
        value = self.chance.randrange(1, 100)
        return f"${value}", f"{value}"

    def _path(self) -> Detail:
        folder, *name = self.chance.choices(self.things, k=3)
        value = f"~/{folder}/{'_'.join(name)}.txt"
        return value, f'"{value}"'

    def _mail(self) -> Detail:
        first, last = (self.chance.choice(names) for names in (self.first_names, self.last_names))
        value = f"{first}.{last}@example.com"
        return f"{first.title()} {last.title()} <{value}>", f'"{value}"'

    def _number(self) -> Detail:
        value = self.chance.randrange(5_550_000_000, 5_559_999_999)
        return f"{value}", f'"{value}"'
