"""How replies are read as actions; no page is needed."""

import pytest

from agentrl_browser import NotAnAction, parse, tool_schemas
from agentrl_browser.keys import strokes


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [
        ("click('1')\nclick('2')", "click('2')"),
        ("Plan(step 1): open it.\nclick('2')", "click('2')"),
        ("```\nclick('1')\nclick('2')\n```", "click('2')"),
        ("fill('4', '''two\nlines''')", "fill('4', 'two\\nlines')"),
        ("click(12)", "click('12')"),
        ('<tool_call>{"name": "click", "arguments": {"bid": 12}}</tool_call>', "click('12')"),
    ],
)
def test_what_stands_before_the_last_action_is_a_thought(reply: str, wanted: str) -> None:
    assert str(parse(reply)) == wanted


@pytest.mark.parametrize(
    "first",
    [
        "```\nclick('3')\n```",
        "```json\n{'a': 1}\n```",
        '<tool_call>{"name": "noop", "arguments": {}}</tool_call>',
    ],
)
@pytest.mark.parametrize(
    "last", ["click('7')", '{"name": "click", "arguments": {"bid": "7"}}', "```\nclick('7')\n```"]
)
def test_what_stands_last_counts_whatever_its_form(first: str, last: str) -> None:
    assert str(parse(f"{first}\nNo, better:\n{last}")) == "click('7')"
    assert str(parse(f"{last}\nThat is it (I think).")) == "click('7')"


def test_of_several_lines_that_are_no_action_the_whole_is_explained() -> None:
    with pytest.raises(NotAnAction, match="cannot be read"):
        parse("fill('4', 'two\nlines')")


@pytest.mark.parametrize("number", ["0x" + "f" * 4000, "10**30", "1" * 30])
def test_a_number_that_is_no_bid_is_no_action(number: str) -> None:
    with pytest.raises(NotAnAction):
        parse(f"click({number})")


def test_every_action_has_a_schema_that_a_tool_call_can_follow() -> None:
    for schema in tool_schemas():
        function = schema["function"]
        given = {
            name: 1 if kind["type"] == "number" else "a"
            for name, kind in function["parameters"]["properties"].items()
            if name in function["parameters"]["required"]
        }
        call = parse(f'{{"name": "{function["name"]}", "arguments": {given!r}}}'.replace("'", '"'))
        assert call.name == function["name"]


def test_a_character_is_not_taken_for_a_key_that_has_its_number() -> None:
    codes = {chr(number): strokes(chr(number))[0]["windowsVirtualKeyCode"] for number in range(33, 127)}
    assert {codes[each] for each in ".,'%&(#$!\"-"}.isdisjoint(range(33, 48))
    assert (codes["a"], codes["A"], codes["1"], codes["!"], codes["."]) == (65, 65, 49, 49, 190)
