"""People and things. Splits share words, but never a person or a thing: those cannot be learnt by heart."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from random import Random


def _words(text: str) -> list[str]:
    return text.split()


# By AppWorld's name of the split: which tenths of all pairs of words are its own.
TENTHS = {"train": range(6), "dev": range(6, 8), "test_normal": range(8, 10)}
# AppWorld wants first names to be unique, so splits do not even share those.
FIRST_NAMES = {
    "train": _words("Ada Bea Cora Dora Emma Fay Adam Ben Carl Dan Eric Finn"),
    "dev": _words("Gina Hana Iris Jane Kim Lena Gus Hugo Ivan Jack Karl Leo"),
    "test_normal": _words("Mia Nora Olga Pia Rosa Vera Max Nick Otto Paul Rob Sam"),
}
EVERYBODY = sum(map(len, FIRST_NAMES.values()))
LAST_NAMES = _words("Stone Winter Brook Field Hill Lake Marsh Ford Wood Rivers")
FIRST_PHONE, STEP = 5_554_000_000, 7919
ADJECTIVES = _words(
    "red blue green old new small big quiet loud cold warm dark bright sweet soft wild early late empty gold"
)
NOUNS = _words(
    "kite boat garden river house train lamp table cup road forest island window market bridge letter stone "
    "party dinner winter"
)
ITEMS = _words("milk eggs rice bread apples soap paper tea salt honey beans flour pears nuts candles coffee")
CITIES = _words("Oakdale Riverton Milford Ashland Dover Salem Clayton Hudson Lebanon Auburn Newport Bristol")


@dataclass(frozen=True)
class Person:
    """Somebody with an account in every app."""

    first_name: str
    last_name: str
    email: str
    phone_number: str
    birthday: str
    sex: str

    @property
    def name(self) -> str:
        """Return first and last name."""
        return f"{self.first_name} {self.last_name}"

    @property
    def number(self) -> int:
        """Return which of all people this is."""
        return (int(self.phone_number) - FIRST_PHONE) // STEP


def people(split: str) -> list[Person]:
    """Return everybody who lives in a split."""
    start = list(TENTHS).index(split)
    return [
        _person(first, LAST_NAMES[(start + 3 * index) % len(LAST_NAMES)], 12 * start + index)
        for index, first in enumerate(FIRST_NAMES[split])
    ]


def things(split: str) -> list[str]:
    """Return the names of things, such as "red kite" and "garden table", that exist in a split.

    The more there are, the less a model can know them by heart: what it cannot guess it has to read.
    """
    return [
        f"{first} {noun}"
        for (i, first), (j, noun) in product(enumerate((*ADJECTIVES, *NOUNS)), enumerate(NOUNS))
        if (i + 3 * j) % 10 in TENTHS[split] and first != noun
    ]


def password(person: Person, app: str) -> str:
    """Return the password of somebody's account."""
    return f"{person.first_name}-{app}-{person.phone_number[-3:]}".lower()


def time_of_day(chance: Random) -> str:
    """Return a time as HH:MM."""
    return f"{chance.randrange(5, 23):02d}:{chance.randrange(0, 60, 5):02d}"


def strangers(chance: Random, known: Sequence[Person]) -> tuple[Person, Person]:
    """Return two people with first names of people who are known, and last names and numbers of nobody."""
    emails = {person.email for person in known}
    free = [
        (person, last)
        for person, last in product(known, LAST_NAMES)
        if _email(person.first_name, last) not in emails
    ]
    # Of the numbers of all splits, every one in so many belongs to the same split.
    rounds = chance.sample(range(1, 20), 2)
    one, other = (
        _person(namesake.first_name, last, namesake.number + EVERYBODY * further)
        for (namesake, last), further in zip(chance.sample(free, 2), rounds, strict=True)
    )
    return one, other


def _person(first: str, last: str, number: int) -> Person:
    return Person(
        first,
        last,
        _email(first, last),
        f"{FIRST_PHONE + STEP * number}",
        f"{1970 + number % 30}-{number % 12 + 1:02d}-{number % 28 + 1:02d}",
        "female" if number % 12 < 6 else "male",
    )


def _email(first: str, last: str) -> str:
    return f"{first}.{last}@example.com".lower()
