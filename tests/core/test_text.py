"""Tags in what a model wrote."""

from agentrl.text import last_tag, matches_exactly

TAGS = ("search", "answer")


def test_the_last_complete_tag_counts() -> None:
    assert last_tag("<search> a</search> or <answer> b </answer>", TAGS) == ("answer", "b")
    assert last_tag("<answer> b</answer><search> a</search>", TAGS) == ("search", "a")
    assert last_tag("<answer> b</answer><search> a", TAGS) == ("answer", "b")


def test_a_tag_that_is_opened_or_closed_twice_is_as_short_as_can_be() -> None:
    assert last_tag("<search> a <search> b</search> c</search>", TAGS) == ("search", "b")


def test_text_without_a_complete_tag_has_none() -> None:
    for text in (
        "",
        "a",
        "<search>",
        "</search>",
        "</search><search>",
        "<search> a</answer>",
        "<code>x</code>",
    ):
        assert last_tag(text, TAGS) is None


def test_an_empty_tag_is_found_empty() -> None:
    assert last_tag("<answer></answer>", TAGS) == ("answer", "")


def test_no_answer_matches_nothing() -> None:
    assert not matches_exactly(None, [""])
    assert matches_exactly("The", [""])
