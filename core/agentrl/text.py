"""Answers and tags: the text conventions that envs, agents and rewards of question answering share."""

import re
import string
from collections.abc import Iterable

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Return `text` as answers are compared: as in SQuAD (Rajpurkar et al. 2016, arXiv 1606.05250).

    Lower-case, without punctuation, without a/an/the, spaces collapsed, in that order.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def matches_exactly(answer: str | None, references: Iterable[str]) -> bool:
    """Return whether `answer` equals one of `references` after `normalize_answer`."""
    if answer is None:
        return False
    return normalize_answer(answer) in {normalize_answer(reference) for reference in references}


def last_tag(text: str, names: Iterable[str]) -> tuple[str, str] | None:
    """Return name and stripped content of the last complete `<name>content</name>`, or None.

    A tag that is opened twice before it is closed counts from its last opening.
    """
    last, found = -1, None
    for name in names:
        opening, closing = f"<{name}>", f"</{name}>"
        begin = text.rfind(opening, 0, max(text.rfind(closing), 0))
        if begin > last:
            content = text[begin + len(opening) : text.find(closing, begin)]
            last, found = begin, (name, content.strip())
    return found
