"""The tokenizer of `tiny_web`: words, and what stands between the words of a page, one token each.

A word is one token with the space before it, and another without it, as after a quote; both begin as
nearly the same for the model, so that what a goal says can be copied into a field. The id of an element,
`[12]`, is a token of its own, not a number, which names may be. The joints of a page's lines are single
tokens, too. Everything else is written in bytes.
"""

from functools import cache
from typing import Any

from tokenizers import Regex, pre_tokenizers

from .tokenizer import assemble, group, words_in

PIECES = "|".join(
    (
        r"\n\t*",  # a new line of the page
        r"\[[0-9]{1,2}\]",  # an id
        r" [a-zA-Z]+ '",  # between an id and a name
        r"', [a-z]+(?:=(?:'|True|False))?",  # behind a name
        r"[a-z]+_[a-z]+(?=\()",  # the name of a call
        r" ?[A-Za-z]+",
        r" ?[0-9]+",
        r"[^A-Za-z0-9\n]+?(?= ?[A-Za-z0-9]|\n|$|', [a-z]|\[[0-9]| [a-zA-Z]+ ')",
    )
)
ROLES = (
    "button", "textbox", "combobox", "checkbox", "radio", "link", "listbox", "searchbox", "spinbutton",
    "slider", "tab", "menuitem", "option", "switch", "generic", "image", "cell", "listitem", "treeitem",
)  # fmt: skip
OTHER_ROLES = (
    "RootWebArea", "StaticText", "heading", "paragraph", "dialog", "list", "table", "row", "form", "gridcell",
    "separator", "status", "alert",
)  # fmt: skip
CALLS = ("click", "fill", "select_option", "press", "noop", "done", "url", "value", "Goal", "Error", "Note")
STATES = (
    "value='", "url='", "focused", "selected=True", "selected=False", "disabled", "checked='", "checked=True",
    "checked=False", "expanded=True", "expanded=False",
)  # fmt: skip
MARKS = (
    "'", " '", "('", "', '", "')", '("', "'\")", "'\", '", '")', "()", "(", ")", " (", "/'", "',", "'.", ".",
    ",", ":", ";", "...", "/", "_", "[", "]", '"', ' "', '",', '".', "-", " -", "@", "?", "!", "=", "='",
)  # fmt: skip
DEEPEST, NUMBERS = 4, 100


@cache
def web_words() -> tuple[str, ...]:
    """Return the words that are tokens, in small letters, sorted; with a capital they are tokens as well."""
    words = {word.lower() for word in (*words_in("words.txt"), *words_in("web_words.txt"), *group("things"))}
    return tuple(sorted(word for word in words if word.isalpha()))


@cache
def likenesses() -> tuple[tuple[tuple[str, str], ...], ...]:
    """Return kinds of tokens that are like others, each as pairs of a token and what it is like.

    Words and numbers without the space before them.
    """
    words = [*web_words(), *(word.title() for word in web_words()), *map(str, range(NUMBERS))]
    return (tuple((word, f" {word}") for word in words),)


def build_web_tokenizer() -> Any:
    """Return the tokenizer."""
    lines = [f"\n{chr(9) * depth}" for depth in range(DEEPEST + 1)]
    joints = [*lines, *(f" {role} '" for role in ROLES), *(f"', {state}" for state in STATES), *MARKS]
    ids = [f"[{number}]" for number in range(NUMBERS)]
    alike = (text for kind in likenesses() for pair in kind for text in pair)
    pieces = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return assemble((*joints, *ROLES, *OTHER_ROLES, *CALLS, *ids, *alike), pieces)
