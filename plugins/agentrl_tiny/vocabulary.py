"""Which words the model meets: those of its encyclopedia, and those that are listed."""

from typing import Any

from .drills import Words
from .tokenizer import USER, listed_words


def words_of(tokenizer: Any, env: Any) -> Words:
    """Return what drills are made of: the people of the training split, and every word there is."""

    def number(word: str) -> int:
        return int(tokenizer.convert_tokens_to_ids(word.replace(" ", "Ġ")))

    pairs = [[number(f" {name}") for name in person.split()] for person in env.people("train")]
    words = [number(word) for word in (*env_words(env), *listed_words())]
    relations = [number(f" {relation}") for relation in env.relations]
    return Words([(first, last) for first, last in pairs], relations, words, number("."), number(USER))


def env_words(env: Any) -> list[str]:
    """Return the words of the env's worlds, each with the space before it."""
    people = [person.split() for person in env.people("train")]
    names = [sorted({name[place] for name in people}) for place in (0, 1)]
    return [f" {word}" for word in (*env.relations, *names[0], *names[1])]
