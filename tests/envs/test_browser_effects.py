"""What actions do in a page, and what an element may be called in them."""

# ruff: noqa: E501 - lines of HTML and JavaScript

import asyncio

import pytest

from agentrl import Action
from agentrl_browser import View
from pages import TASK, body, error, page_env, play, texts

pytestmark = pytest.mark.usefixtures("browser")


def test_text_is_typed_as_a_person_would_and_a_change_is_told_when_the_field_is_left() -> None:
    html = body(
        """<input id=a value=old><textarea></textarea><div contenteditable>old</div><ol id=log></ol><script>
        for (const kind of ["input", "change"])
          a.addEventListener(kind, (event) => log.append(`${kind}:${event.isTrusted}`));
        </script>"""
    )
    seen = texts(html, ["fill('1', 'new')", "fill('2', 'two\\nlines')", "fill('3', 'rich')", "clear('2')"])
    assert "[1] textbox '', value='new', focused" in seen[1]
    assert seen[1].count("change") == 0
    assert "StaticText 'input:true'\n\tStaticText 'change:true'" in seen[2]
    assert "value='two lines'" in seen[2]
    assert "[3] clickable 'rich'" in seen[3]
    assert "[2] textbox '', value=''" in seen[4]


def test_keys_reach_what_has_the_focus() -> None:
    html = body(
        """<form onsubmit="said.textContent = 'sent ' + f.value; return false"><input id=f></form><p id=said></p>
        <button onkeydown="this.textContent += event.key + event.ctrlKey">B</button>"""
    )
    seen = texts(
        html,
        ["press('1', 'a')", "press('', 'Shift+b')", "press('', 'Enter')", "press('2', 'Control+ArrowUp')"],
    )
    assert "StaticText 'sent aB'" in seen[3]
    assert "ControltrueArrowUptrue" in seen[4]
    assert error(html, "press('1', 'Retrun')").startswith("there is no key 'Retrun'; keys are")


def test_every_printable_character_can_be_pressed() -> None:
    keys = [chr(number) for number in range(33, 127)]
    html = body("<input id=f><p id=said></p><script>f.oninput = () => said.textContent = f.value</script>")
    last = texts(html, [f"press('1', {key!r})" for key in keys])[-1]
    assert f"value={''.join(keys)!r}" in last or "".join(keys) in last.replace("\\\\", "\\").replace(
        "\\'", "'"
    )


def test_a_colour_may_be_written_in_capitals() -> None:
    html = body("<input type=color>")
    assert error(html, "fill('1', '#FF0000')") == ""
    assert "takes a color" in error(html, "fill('1', 'red')")


def test_each_page_has_a_clipboard_of_its_own() -> None:
    html = body("<input value=secret><input>")

    async def both() -> list[str]:
        envs = [page_env(html), page_env(html)]
        for env in envs:
            await env.reset(TASK, 1)
        for action in ("press('1', 'Control+a')", "press('1', 'Control+c')", "press('2', 'Control+v')"):
            await envs[0].step(Action(action))
        seen = [(await env.step(Action("press('2', 'Control+v')"))).text for env in envs]
        for env in envs:
            await env.close()
        return seen

    mine, theirs = asyncio.run(both())
    assert "[2] textbox '', value='secretsecret'" in mine
    assert "[2] textbox '', value='', focused" in theirs


@pytest.mark.parametrize(
    "script",
    [
        """a.draggable = true; a.ondragstart = (event) => event.dataTransfer.setData("text", "1");
        b.ondragover = (event) => event.preventDefault();
        b.ondrop = (event) => { event.preventDefault(); b.append("got " + event.dataTransfer.getData("text")); };
        b.onclick = () => 1;""",
        """let held = false; a.onmousedown = () => held = true; b.onmousedown = () => 1;
        b.onmouseup = () => { if (held) b.append("got 1"); };""",
    ],
    ids=["by the browser", "by the mouse"],
)
def test_things_are_dragged(script: str) -> None:
    boxes = "<div id=a style='width:50px;height:50px'>A</div><div id=b style='margin:50px'>B</div>"
    seen = texts(body(f"{boxes}<script>{script}</script>"), ["drag_and_drop('1', '2')"])
    assert "got 1" in seen[1]


def test_a_list_scrolls_where_it_is_told_to() -> None:
    html = body(
        """<div id=a tabindex=0 style="height:50px;overflow:auto"><p style="height:900px">tall</p></div><p id=s></p>
        <script>a.onscroll = () => s.textContent = "at " + a.scrollTop;</script>"""
    )
    assert "StaticText 'at 100'" in texts(html, ["scroll(0, 100, '1')"])[1]


def test_an_element_may_be_called_by_its_name_or_by_its_line() -> None:
    html = body(
        """<button onclick="s.textContent += ' ' + this.textContent">7</button><label>Name<input></label>
        <button onclick="s.textContent += ' ' + this.textContent">Name</button><p id=s></p>"""
    )
    actions = ["click(\"button '7'\")", "fill(\"textbox 'Name'\", 'Ada')", "click(\"button 'Name'\")"]
    seen = asyncio.run(play(page_env(html), actions))
    assert "StaticText '7 Name'" in seen[-1].text
    assert "textbox 'Name', value='Ada'" in seen[-1].text
    assert [each.action_key for each in seen[1:]] == [
        "click(button '7')",
        "fill(textbox 'Name', 'Ada')",
        "click(button 'Name')",
    ]
    assert "nothing is called" in error(html, "click('name')")


@pytest.mark.parametrize(
    ("shown", "targets"),
    [
        (["[1] button 'Save'", "[2] textbox 'Day'"], ["Save", "Day"]),
        (["[1] button 'Day'", "[2] textbox 'Day'"], ["button 'Day'", "textbox 'Day'"]),
        (["[1] button 'Day'", "[2] button 'Day'", "[3] link ''"], ["1", "2", "3"]),
        (["[1] button '14'", "[2] button '2'", "LabelText '2'"], ["button '14'", "button '2'", ""]),
        ([r"[1] button 'it\'s \\'"], ["it's \\"]),
    ],
)
def test_an_element_is_called_what_nothing_else_is_called(shown: list[str], targets: list[str]) -> None:
    view = View.of("\n".join(["RootWebArea ''", *(f"\t{line}" for line in shown)]))
    assert [each.target for each in view.elements] == targets
    for each in view.all():
        assert view.meant(each.target) == view.meant(each.bid) == each.bid
