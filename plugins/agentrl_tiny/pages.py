"""Page drills: what gives the small transformer the habit of doing in a page what a goal says, step by step.

A page is shown as `agentrl_browser` shows pages. A goal names some of its elements, and what to write or
choose there, one after another; the answer to each look at the page is the call that does what comes next:

    Goal: Tap 17, next enter red kite at Boat.
    RootWebArea 'Lamp', url='/'
      [1] textbox 'Boat', value=''
      [2] button '17'
    -> click("button '17'")
    -> fill('Boat', 'red kite')
    -> done()

A name that is a number would be taken for an element's, so its role goes before it.

All words are drawn by chance and mean nothing, so that nothing can be learnt by heart: what to do next must
be read in the goal, and with what sort of element in the page. Shapes: B rows of a batch, T tokens.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .demonstrations import padded
from .web_tokenizer import web_words

# What is shown, and what is to be answered, turn by turn.
Dialogue = list[tuple[str, str]]

# None of these begins a goal of an env: how tasks are put is learnt there.
PRESS = ("Tap", "Hit", "Push", "Use", "Open", "Click", "Touch", "Try")
FILL = ("Enter", "Put", "Type", "Note", "Add", "Leave", "Copy", "Give")
SELECT = ("Set", "Take", "Mark", "Select", "Get", "Make", "Want", "Change")
PLACES = ("at", "for", "on", "under", "with", "from", "of", "by")
JOINTS = (", ", " and ", ", next ", ". ", "; ", " before ", ", and ")
# How many lines of text a page has.
TEXTS = (0, 0, 1, 2)
LETTERS, VOWELS, DIGITS = "bcdfghjklmnpqrstvwxyz", "aeiou", "0123456789"


@dataclass
class Control:
    """An element that can be acted upon.

    Attributes:
        value: what is written or chosen there; None for a button.
        options: of a list.
    """

    bid: int
    role: str
    name: str
    value: str | None = None
    options: Sequence[str] = ()
    focused: bool = False

    @property
    def target(self) -> str:
        """Return what a call calls it."""
        return f"{self.role} '{self.name}'" if self.name.isdecimal() else self.name

    def lines(self) -> list[str]:
        """Return how a page shows it."""
        value = "" if self.value is None else f", value='{self.value}'"
        focused = ", focused" if self.focused else ""
        options = [f"\t\toption '{each}', selected={each == self.value}" for each in self.options]
        return [f"\t[{self.bid}] {self.role} '{self.name}'{value}{focused}", *options]


@dataclass(frozen=True)
class Errand:
    """One thing to do: how a goal says it, and the call that does it."""

    control: Control
    said: str
    call: str
    value: str | None = None


@dataclass
class Page:
    """A page: controls, and lines of text between them by the place before which they stand."""

    title: str
    controls: list[Control]
    texts: list[tuple[int, str]] = field(default_factory=list)

    def show(self) -> str:
        """Return how an observation shows it."""
        lines = [f"RootWebArea '{self.title}', url='/'"]
        for place in range(len(self.controls) + 1):
            lines += [f"\tStaticText '{text}'" for at, text in self.texts if at == place]
            lines += self.controls[place].lines() if place < len(self.controls) else []
        return "\n".join(lines)


class Pages:
    """Makes dialogues about pages, each another one, of words that the tokenizer knows and others."""

    def __init__(self, chance: random.Random, most: int = 8, longer: float = 0.5) -> None:
        """Take the chance that draws everything.

        A page has `most` controls at most, and this share of words is spelled or is two.
        """
        self.chance, self.most, self.longer = chance, most, longer
        glue = {
            word for said in (*PRESS, *FILL, *SELECT, *PLACES, *JOINTS, "in") for word in said.lower().split()
        }
        self.words = [word for word in web_words() if word not in glue]

    def batch(self, tokenizer: Any, size: int) -> tuple[Tensor, Tensor]:
        """Return ids and the mask of what is to be learnt, both (B, T), padded on the right."""
        return padded(tokenizer, [self.dialogue() for _ in range(size)])

    def dialogue(self) -> Dialogue:
        """Return what is shown and what is to be answered, turn by turn, until it is done."""
        page = self.page(self.chance.randint(2, self.most))
        count = min(len(page.controls), self.chance.choice((1, 2, 2, 3, 3, 4)))
        errands = [self.errand(each) for each in self.chance.sample(page.controls, count)]
        shown, turns = f"Goal: {self._goal(errands)}\n{page.show()}", Dialogue()
        for errand in errands:
            turns.append((shown, errand.call))
            self.act(page, errand)
            shown = page.show()
        return [*turns, (shown, "done()")]

    def one_page(self) -> Dialogue:
        """Return short goals, all about the page that is shown with the first."""
        page = self.page(self.chance.randint(2, self.most))
        controls = [*page.controls, *page.controls]
        self.chance.shuffle(controls)
        errands = [self.errand(each) for each in controls]
        goals = [f"Goal: {self._goal([errand])}" for errand in errands]
        goals[0] = f"{goals[0]}\n{page.show()}"
        return [(goal, errand.call) for goal, errand in zip(goals, errands, strict=True)]

    def page(self, count: int) -> Page:
        """Return a page with so many controls."""
        names = self._different(count)
        bids = list(range(1, count + 1))
        if self.chance.random() < 0.5:
            bids = sorted(self.chance.sample(range(1, 60), count))
        controls = [self._control(bid, name) for bid, name in zip(bids, names, strict=True)]
        texts = [(self.chance.randint(0, count), self._text()) for _ in range(self.chance.choice(TEXTS))]
        return Page(self._word(), controls, texts)

    def errand(self, control: Control) -> Errand:
        """Return something to do with a control."""
        choose, name = self.chance.choice, control.name
        if control.role == "button":
            return Errand(control, f"{choose(PRESS)} {name}", f"click({control.target!r})")
        fills = control.role == "textbox"
        value = self._value() if fills else choose(control.options[1:])
        said = f"{choose(FILL if fills else SELECT)} {value} {choose(PLACES)} {name}"
        call = f"{'fill' if fills else 'select_option'}({control.target!r}, {value!r})"
        return Errand(control, said, call, value)

    def act(self, page: Page, errand: Errand) -> None:
        """Let the page change as it does when an errand is done."""
        for each in page.controls:
            each.focused = each is errand.control
        if errand.value is not None:
            errand.control.value = errand.value
        elif self.chance.random() < 0.7:
            place = self.chance.randint(0, len(page.controls))
            page.texts.append((place, f"{self._word()}: {errand.control.name}"))

    def _control(self, bid: int, name: str) -> Control:
        role = self.chance.choice(("button",) * 5 + ("textbox",) * 4 + ("combobox",))
        if role == "button":
            return Control(bid, role, name)
        if role == "textbox":
            return Control(bid, role, name, "" if self.chance.random() < 0.8 else self._value())
        options = self._different(self.chance.choice((2, 2, 3, 4)))
        return Control(bid, role, name, options[0], options)

    def _goal(self, errands: Sequence[Errand]) -> str:
        joint = self.chance.choice(JOINTS)
        said = [errands[0].said]
        for errand in errands[1:]:
            joint = self.chance.choice(JOINTS) if self.chance.random() < 0.5 else joint
            words = errand.said if joint == ". " else errand.said[0].lower() + errand.said[1:]
            said.append(f"{joint}{words}")
        return f"{''.join(said)}."

    def _different(self, count: int) -> list[str]:
        """Return different names; often they are of one kind."""
        kind = self.chance.choice((self._name, self._number, self._longer))
        names: dict[str, None] = {}
        while len(names) < count:
            alike = kind if self.chance.random() < 0.8 else self._name
            names[alike()] = None
        return self.chance.sample(list(names), count)

    def _name(self) -> str:
        return self.chance.choice((self._longer, self._word, self._longer, self._number))()

    def _value(self) -> str:
        return self.chance.choice((self._longer, self._lower, self._longer, self._number))()

    def _longer(self) -> str:
        if self.chance.random() < self.longer:
            return self.chance.choice((self._two_words, self._spelled))()
        return self._word()

    def _text(self) -> str:
        return f"{self._word()}{self.chance.choice((': ', ' '))}{self._name()}"

    def _word(self) -> str:
        return self._lower().title()

    def _lower(self) -> str:
        return self.chance.choice(self.words)

    def _two_words(self) -> str:
        words = " ".join(self.chance.choices(self.words, k=2))
        return words if self.chance.random() < 0.7 else words.capitalize()

    def _number(self) -> str:
        return str(self.chance.randint(1, 99))

    def _spelled(self) -> str:
        """Return a word that nobody knows; some can be spoken, some have digits."""
        choose = self.chance.choice
        if self.chance.random() < 0.4:
            pieces = [choose(LETTERS) + choose(VOWELS) for _ in range(self.chance.randint(1, 3))]
            word = "".join(pieces) + choose(LETTERS)
        else:
            letters = LETTERS + VOWELS + (DIGITS if self.chance.random() < 0.2 else "")
            word = "".join(self.chance.choices(letters, k=self.chance.randint(2, 8)))
        return choose((word.title(), word.title(), word, word.upper()))
