"""What a page shows, and what is said of an action that cannot be done in it."""

# ruff: noqa: E501 - lines of HTML and JavaScript

import asyncio

import pytest

from agentrl import Action
from pages import ROOMS, TASK, body, error, page_env, play, texts

pytestmark = pytest.mark.usefixtures("browser")


def test_a_page_is_shown_as_lines_with_numbers_for_what_can_be_acted_on() -> None:
    seen = texts(ROOMS, ["fill('1', 'sync')", "select_option('2', 'Oak')", "click('3')"])
    assert seen[0] == (
        "Goal: book a room\n"
        "RootWebArea 'Rooms', url='/'\n"
        "\theading 'Book a room'\n"
        "\t[1] textbox 'Title', value=''\n"
        "\t[2] combobox 'Room', value='choose'\n"
        "\t\toption 'choose', value='', selected=True\n"
        "\t\toption 'Oak', value='o', selected=False\n"
        "\t\toption 'Elm', selected=False, disabled=True\n"
        "\t[3] button 'Book', disabled=True\n"
        "\tstatus ''\n"
        "\t[4] link 'Second page'"
    )
    assert "[1] textbox 'Title', value='sync', focused\n" in seen[1]
    assert "[2] combobox 'Room', value='Oak', focused\n" in seen[2]
    assert "\tstatus 'booked sync 17672256" in seen[3]


def test_elements_with_listeners_are_found_and_those_that_cannot_be_seen_are_left_out() -> None:
    [seen] = texts(
        body(
            """<div id=a>Hot</div><div>Cold</div><div onclick="1">Inline</div><p hidden>no</p>
            <p style="visibility:hidden">no</p><p aria-hidden=true>no</p><div style="display:none"><b>no</b></div>
            <script>document.getElementById("a").addEventListener("click", () => 1)</script>"""
        ),
        [],
    )
    assert seen.splitlines()[2:] == [
        "\t[1] clickable 'Hot'",
        "\tStaticText 'Cold'",
        "\t[2] clickable 'Inline'",
    ]


def test_a_form_whose_fields_are_called_like_properties_is_shown_all_the_same() -> None:
    fields = "".join(
        f"<input name={name} placeholder={name}>"
        for name in (
            "id",
            "title",
            "parentElement",
            "textContent",
            "children",
            "tagName",
            "matches",
            "onclick",
        )
    )
    [seen] = texts(body(f"<form>{fields}<button>Go</button></form>"), [])
    assert seen.count("textbox") == 8
    assert "button 'Go'" in seen


def test_frames_and_shadows_are_seen_and_clicked() -> None:
    html = body(
        """<iframe style="margin:40px" srcdoc="<button onclick='this.textContent=7'>In a frame</button>"></iframe>
        <div id=host></div>
        <script>
        const root = host.attachShadow({mode: "open"});
        root.innerHTML = "<button>In a shadow</button>";
        root.firstChild.onclick = () => root.firstChild.textContent = "8";
        </script>"""
    )
    seen = texts(html, ["click('1')", "click('2')"])
    assert "[1] button 'In a frame'" in seen[0]
    assert "[2] button 'In a shadow'" in seen[0]
    assert "[1] button '7'" in seen[1]
    assert "[2] button '8'" in seen[2]


def test_a_long_page_is_cut_between_lines_and_says_so() -> None:
    [seen] = texts(body("<button>Some button</button>" * 100), [], characters=1000)
    assert len(seen) < 1100
    assert seen.endswith("more lines)")


def test_numbers_are_not_given_twice_within_an_episode_and_start_anew_with_the_next() -> None:
    async def twice() -> list[str]:
        env = page_env(ROOMS)
        seen = []
        for _ in range(2):
            await env.reset(TASK, 1)
            seen.append((await env.step(Action("click('4')"))).text)
        await env.close()
        return seen

    one, two = asyncio.run(twice())
    assert "url='/two'" in one
    assert "[5] textbox" in one
    assert one == two


# Errors that say what to do

TWINS = body("<button>A</button><button>C</button><button>A</button>")
COVERED = body(
    """<button>Under</button><div role=dialog aria-label="Rate us?" style="position:fixed;inset:0;background:#fff;padding:200px">
    <button>Dismiss</button></div>"""
)


@pytest.mark.parametrize(
    ("html", "action", "said"),
    [
        (ROOMS, "click('99')", "there is no element 99; take a bid from the newest observation"),
        (ROOMS, "click('x')", "nothing is called 'x'; take a bid or a name from the newest observation"),
        (TWINS, "click('A')", "2 elements are called 'A'; take a bid: 1, 3"),
        (TWINS, "click('button \\'A\\'')", "2 elements are called \"button 'A'\"; take a bid: 1, 3"),
        (TWINS, "drag_and_drop('C', 'A')", "2 elements are called 'A'; take a bid: 1, 3"),
        (ROOMS, "click('3')", "element 3 is disabled"),
        (COVERED, "click('1')", "element 1 is covered by dialog 'Rate us?'"),
        (ROOMS, "fill('3', 'x')", "element 3 is disabled"),
        (ROOMS, "fill('4', 'x')", "element 4 cannot be filled: it is a link"),
        (ROOMS, "fill('2', 'x')", "element 2 cannot be filled: it is a combobox"),
        (body("<input readonly>"), "fill('1', 'x')", "element 1 is read-only"),
        (
            body("<input type=date>"),
            "fill('1', 'tomorrow')",
            "element 1 takes a date such as '2026-01-31', not 'tomorrow'",
        ),
        (ROOMS, "select_option('2', 'Fir')", "element 2 has no option 'Fir'; it has 'choose', 'Oak', 'Elm'"),
        (ROOMS, "select_option('2', 'Elm')", "option 'Elm' of element 2 is disabled"),
        (ROOMS, "select_option('2', ['choose', 'Oak'])", "element 2 takes one option"),
        (
            ROOMS,
            "select_option('1', 'Oak')",
            "element 1 is no native list of options; click it, then what it shows",
        ),
        (ROOMS, "scroll(0, 500)", "nothing could be scrolled that way"),
        (
            ROOMS,
            "click('1'",
            """"click('1'" is no whole call: close it with a bracket, and write nothing after it, as in click('12')""",
        ),
    ],
)
def test_what_cannot_be_done_is_said(html: str, action: str, said: str) -> None:
    assert error(html, action) == said


def test_elements_that_went_or_hid_are_told_apart() -> None:
    html = body(
        """<button onclick="a.remove(); b.hidden = true">Go</button><button id=a>A</button><button id=b>B</button>"""
    )
    seen = texts(html, ["click('1')", "click('2')", "click('3')"])
    assert seen[2].startswith("Error: element 2 is gone; take a bid from the newest observation\n")
    assert seen[3].startswith("Error: element 3 is hidden\n")


def test_nonsense_is_answered_and_ends_an_episode_only_after_a_while() -> None:
    seen = asyncio.run(play(page_env(ROOMS, max_invalid=3), ["lorem", "noop()", "a", "b", "c"]))
    assert seen[1].text.startswith("Error: that is no action. Reply with one action, such as click('12')")
    assert [each.done for each in seen] == [False, False, False, False, False, True]
