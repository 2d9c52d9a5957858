"""The browser layer: what a page shows, what actions do and say, virtual time, and the life of browsers."""

# ruff: noqa: E501 - lines of HTML and JavaScript

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from agentrl import Action, Observation, Outcome, Task, UsageError
from agentrl_browser import (
    BrowserEnv,
    BrowserGone,
    Request,
    Response,
    Scene,
    View,
    find_executable,
    lease,
    protocol,
)
from agentrl_browser.chromium import PREFIX, sweep
from agentrl_browser.protocol import ProtocolError

pytestmark = pytest.mark.usefixtures("browser")
TASK = Task("page")
ROOMS = """<!doctype html><title>Rooms</title><body>
<h1>Book a room</h1>
<label>Title <input id=title></label>
<label>Room <select id=room><option value="">choose</option><option value=o>Oak</option>
<option disabled>Elm</option></select></label>
<button id=go disabled>Book</button>
<p id=said role=status></p>
<a href="/two">Second page</a>
<script>
title.oninput = () => go.disabled = !title.value;
go.addEventListener("click", async () => {
  said.textContent = "saving";
  const answer = await fetch("/book", {method: "POST", body: title.value});
  await new Promise((go_on) => setTimeout(go_on, 300));
  said.textContent = await answer.text() + Date.now() + " " + performance.now() + " " + Math.random();
});
</script>"""


class OnePage(BrowserEnv):
    """Plays in a page that a test gives."""

    html = ROOMS
    remembers = False

    def tasks(self, split: str) -> Sequence[Task]:
        return [TASK]

    def pose(self, task: Task, seed: int) -> Scene:
        self.site = _Site(self.html)
        return Scene(self.site, "book a room")

    async def judge(self) -> Outcome:
        return Outcome(self.ending is not None and self.ending.name == "done")


class _Site:
    origin = "http://rooms.invalid"

    def __init__(self, html: str) -> None:
        self.html, self.booked = html, [""] * 0

    def answer(self, request: Request) -> Response:
        if request.path == "/fail":
            raise RuntimeError("the backend is broken")
        if request.path == "/book":
            self.booked.append(request.body.decode())
            return Response(body=f"booked {request.body.decode()} ", type="text/plain")
        return Response(body=self.html)

    def state_key(self) -> str:
        return repr(self.booked)


def page_env(html: str, **options: object) -> OnePage:
    env = OnePage(OnePage.Config(**options))
    env.html = html
    return env


async def play(env: OnePage, actions: Sequence[str], seed: int = 1) -> list[Observation]:
    try:
        seen = [await env.reset(TASK, seed)]
        for text in actions:
            seen.append(await env.step(Action(text)))
        return seen
    finally:
        await env.close()


def texts(html: str, actions: Sequence[str], **options: object) -> list[str]:
    return [each.text for each in asyncio.run(play(page_env(html, **options), actions))]


def error(html: str, action: str) -> str:
    first = texts(html, [action])[-1].partition("\n")[0]
    return first.removeprefix("Error: ") if first.startswith("Error: ") else ""


def body(html: str) -> str:
    return f"<!doctype html><title>T</title><body>{html}</body>"


# What a page shows


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


# What actions do


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


def test_what_the_future_depends_on_makes_another_state() -> None:
    html = body(
        """<input value=a><button>A</button><button>B</button>
        <iframe srcdoc="<input id=i onclick='secret = 1'>" aria-hidden=true></iframe>"""
    )

    def state(*actions: str) -> str | None:
        return asyncio.run(play(page_env(html), actions))[-1].state_key

    assert state("focus('2')") == state("focus('2')") != state("focus('3')")
    copied = ("press('1', 'Control+a')", "press('1', 'Control+c')", "focus('2')")
    assert state(*copied) != state("press('1', 'Control+a')", "press('1', 'Control+b')", "focus('2')")


def test_what_is_chosen_in_a_list_or_a_shadow_makes_another_state() -> None:
    html = body(
        """<select multiple><option>A<option>B</select><div id=host></div><script>
        const shadow = host.attachShadow({mode: "open"});
        shadow.innerHTML = "<input>";
        </script>"""
    )

    def state(action: str) -> str | None:
        return asyncio.run(play(page_env(html), [action, "focus('1')"]))[-1].state_key

    keys = [state(f"select_option('1', {which})") for which in ("['A']", "['A', 'B']", "['B']")]
    assert len(set(keys)) == 3
    assert state("fill('2', 'a')") != state("fill('2', 'b')")


def test_what_was_done_makes_another_state_where_scripts_may_remember_it() -> None:
    html = body("<button onclick='window.pressed = true'>A</button>")

    def states(*, remembers: bool) -> list[str | None]:
        made = [page_env(html) for _ in range(3)]
        for each in made:
            each.remembers = remembers  # type: ignore[misc]
        actions = ("click('1')", "focus('1')", "click('A')")
        return [
            asyncio.run(play(each, [action]))[-1].state_key
            for each, action in zip(made, actions, strict=True)
        ]

    assert len(set(states(remembers=False))) == 1
    clicked, looked_at, by_name = states(remembers=True)
    assert clicked == by_name != looked_at


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


def test_an_action_has_a_key_that_does_not_depend_on_numbers() -> None:
    html = body("<button>A</button><button>B</button><button>A</button>")
    seen = asyncio.run(play(page_env(html), ["click('3')", "click('9')", "click(bid='1')", "done()"]))
    keys = [each.action_key for each in seen]
    assert keys == [None, "click(button 'A' #2)", "click('9')", "click(button 'A')", "done()"]


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


# Time


def test_virtual_time_passes_only_in_steps_and_as_much_as_they_say() -> None:
    html = body(
        "<p id=p></p><script>setInterval(() => p.textContent = Date.now() - 1767225600000, 100)</script>"
    )

    async def wait() -> list[str]:
        env = page_env(html)
        first = await env.reset(TASK, 1)
        await asyncio.sleep(0.3)
        later = await env.page.snapshot()
        after = await env.step(Action("noop(3000)"))
        await env.close()
        return [first.text.splitlines()[-1], later.text.splitlines()[-1], after.text.splitlines()[-1]]

    before, still, after = asyncio.run(wait())
    assert before == still == "\tStaticText '510'"
    assert after == "\tStaticText '3510'"


def test_real_time_passes_by_itself() -> None:
    assert "booked x " in texts(ROOMS, ["fill('1', 'x')", "click('3')"], real_time=True)[-1]


LIVELY = body(
    """<button id=a>A</button><p id=p></p><p id=q></p><script>
    let n = 0, frames = 0;
    const tick = async () => { n += (await (await fetch("/?" + n)).text()).length; p.textContent = [n, Math.random(), crypto.getRandomValues(new Uint16Array(2))].join(" "); };
    setInterval(tick, 70); a.onclick = tick;
    const frame = (at) => { frames++; q.textContent = frames + " " + at + " " + performance.now(); requestAnimationFrame(frame); };
    requestAnimationFrame(frame);
    </script>"""
)


def test_the_same_actions_give_the_same_observations_alone_and_eight_at_a_time() -> None:
    actions = ["click('1')", "noop(333)", "click('1')", "press('', 'Tab')", "noop(120)"]

    async def many() -> list[list[Observation]]:
        alone = [await play(page_env(LIVELY), actions) for _ in range(4)]
        return alone + [
            each
            for _ in range(2)
            for each in await asyncio.gather(*(play(page_env(LIVELY), actions) for _ in range(8)))
        ]

    runs = asyncio.run(many())
    assert len(runs) == 20
    assert all(run == runs[0] for run in runs)
    assert len({each.text for each in runs[0]}) == len(runs[0]), "every observation differs from the others"


# Pages that are played in again

KEEPING = body(
    """<button id=b>Go</button><p id=p></p><script>
    const late = new Date(), fresh = late instanceof Date && late.constructor === Date && Date() === String(late);
    p.textContent = JSON.stringify([document.cookie, localStorage.a, sessionStorage.a, name, history.length, fresh,
      Date.now(), +late, +new Date(2026, 0, 2), performance.now(), Math.random(), b.matches(":hover"), document.referrer]);
    indexedDB.open("base").onupgradeneeded = () => { name = "new"; };
    document.cookie = "a=1"; localStorage.a = sessionStorage.a = name = "kept";
    addEventListener("pagehide", () => { fetch("/book", {method: "POST", body: "late", keepalive: true}); navigator.sendBeacon("/book", "late"); });
    setInterval(() => fetch("/book", {method: "POST", body: "tick"}), 10_000);
    b.style = "position: fixed; inset: 0"; b.onclick = () => history.pushState(1, "", "/");
    </script>"""
)


def test_an_episode_finds_nothing_of_the_one_before_in_its_page() -> None:

    async def episodes() -> tuple[list[list[Observation]], list[bool]]:
        env, seen, same = page_env(KEEPING), [], []
        for _ in range(3):
            page = env._page
            first = await env.reset(TASK, 1)
            same.append(env._page is page)
            seen.append([first, await env.step(Action("click('Go')")), await env.step(Action("noop(60000)"))])
            assert env.site.booked == ["tick"] * 6
        await env.close()
        return seen, same

    seen, same = asyncio.run(episodes())
    assert seen[0] == seen[1] == seen[2]
    assert '["",null,null,"",2,true,' in seen[0][0].text
    assert same == [False, True, True]


def test_a_page_that_is_played_in_again_keeps_no_document_of_earlier_episodes() -> None:
    async def documents() -> int:
        env = page_env(ROOMS)
        for _ in range(8):
            await env.reset(TASK, 1)
        assert env._page is not None
        await env._page.call("HeapProfiler.collectGarbage")
        counted: int = (await env._page.call("Memory.getDOMCounters"))["documents"]
        await env.close()
        return counted

    assert asyncio.run(documents()) <= 2


# The life of browsers


def children() -> set[int]:
    """Return the processes that descend from this one."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listed.splitlines()]
    found, queue = set[int](), deque([os.getpid()])
    while queue:
        parent = queue.popleft()
        below = {pid for pid, of in pairs if of == parent}
        found |= below
        queue.extend(below)
    return found


def profiles() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob(f"{PREFIX}{os.getpid()}-*"))


def test_nothing_is_left_when_the_last_env_is_closed() -> None:
    async def episodes() -> int:
        envs = [page_env(ROOMS) for _ in range(3)]
        await asyncio.gather(*(env.reset(TASK, 1) for env in envs))
        started = len(profiles())
        await envs[0].close()
        await envs[0].close()
        assert (await envs[1].step(Action("noop()"))).text
        await asyncio.gather(*(env.close() for env in envs))
        return started

    assert asyncio.run(episodes()) == 1, "all share one browser"
    assert profiles() == set()
    assert not [pid for pid in children() if "chrom" in _command(pid)]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except FileNotFoundError:
        return ""


def the_browser() -> int:
    [main] = [
        pid
        for pid in children()
        if "--remote-debugging-pipe" in _command(pid) and "--type=" not in _command(pid)
    ]
    return main


def test_a_browser_that_is_killed_costs_the_episodes_in_it_and_not_the_next() -> None:
    async def episodes() -> tuple[list[object], str]:
        envs = [page_env(ROOMS) for _ in range(2)]
        await asyncio.gather(*(env.reset(TASK, 1) for env in envs))
        steps = [asyncio.create_task(env.step(Action("noop(1000)"))) for env in envs]
        os.kill(the_browser(), signal.SIGKILL)
        failures = await asyncio.gather(*steps, return_exceptions=True)
        again = await envs[0].reset(TASK, 1)
        for env in envs:
            await env.close()
        return failures, again.text

    failures, again = asyncio.run(episodes())
    assert all(isinstance(failure, BrowserGone) for failure in failures)
    assert "killed by SIGKILL" in str(failures[0])
    assert "[1] textbox 'Title'" in again
    assert profiles() == set()


def test_a_browser_that_hangs_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "CALL_SECONDS", 5.0)

    async def episodes() -> str:
        env = page_env(ROOMS)
        await env.reset(TASK, 1)
        stopped = the_browser()
        os.kill(stopped, signal.SIGSTOP)
        with pytest.raises((BrowserGone, ProtocolError), match="did not answer"):
            await env.step(Action("fill('1', 'x')"))
        again = await env.reset(TASK, 1)
        assert the_browser() != stopped
        await env.close()
        return again.text

    assert "[1] textbox 'Title'" in asyncio.run(episodes())
    assert profiles() == set()


def test_a_page_that_crashes_costs_its_own_episode_only() -> None:
    async def episodes() -> tuple[str, str]:
        envs = [page_env(ROOMS) for _ in range(2)]
        await asyncio.gather(*(env.reset(TASK, 1) for env in envs))
        with pytest.raises(BrowserGone) as raised:
            await envs[0].page.call("Page.crash")
        other = await envs[1].step(Action("fill('1', 'x')"))
        left = await envs[1].page._connection.call("Target.getBrowserContexts")
        assert len(left["browserContextIds"]) == 1
        for env in envs:
            await env.close()
        return str(raised.value), other.text

    said, other = asyncio.run(episodes())
    assert "the page crashed" in said
    assert "value='x'" in other


def test_a_page_is_closed_after_its_time_to_live() -> None:
    async def episode() -> None:
        env = page_env(ROOMS, seconds=2.0)
        try:
            await env.reset(TASK, 1)
            await asyncio.sleep(2.2)
            await env.step(Action("noop()"))
        finally:
            await env.close()

    with pytest.raises(BrowserGone, match=r"closed after 2 s, its time to live"):
        asyncio.run(episode())


def test_a_site_that_fails_makes_the_episode_an_error() -> None:
    html = body("<button onclick=\"fetch('/fail')\">A</button>")
    with pytest.raises(RuntimeError, match="the backend is broken"):
        texts(html, ["click('1')"])


def test_profile_folders_of_the_dead_are_swept_and_those_of_the_living_are_kept(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{dead.pid}-"))
    kept = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getppid()}-"))
    assert left in sweep()
    assert not left.exists()
    assert kept.exists()
    kept.rmdir()


def test_a_browser_ends_with_a_run_that_is_killed() -> None:
    code = """
import asyncio, sys
from agentrl_browser.browser import Browser
from agentrl_browser import find_executable
async def main():
    browser = await Browser.start(find_executable())
    print(browser.chromium.pid, flush=True)
    await asyncio.sleep(100)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        browser = int(run.stdout.readline())
        run.kill()
    assert asyncio.run(_until(lambda: not Path(f"/proc/{browser}").exists() or _is_zombie(browser)))
    sweep()


async def _until(holds: Callable[[], bool]) -> bool:
    for _ in range(600):
        if holds():
            return True
        await asyncio.sleep(0.1)
    return False


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_browser_that_cannot_start_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "browser"
    broken.write_text("#!/bin/sh\necho no such library >&2\nexit 7\n")
    broken.chmod(0o755)

    async def start() -> None:
        leased = lease(str(broken))
        try:
            await leased.open(_Site(ROOMS), options=None)  # type: ignore[arg-type]
        finally:
            leased.close()

    with pytest.raises(BrowserGone, match=r"does not run as a browser: .*exit status 7; no such library"):
        asyncio.run(start())
    assert profiles() == set()


def test_a_missing_browser_is_an_error_with_the_command_that_installs_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AGENTRL_BROWSER", raising=False)
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    monkeypatch.setattr("agentrl_browser.chromium.CANDIDATES", ("no-such-browser",))
    with pytest.raises(UsageError, match="apt-get install --no-install-recommends chromium-headless-shell"):
        find_executable()
    with pytest.raises(UsageError, match="no browser at 'no-such'"):
        find_executable("no-such")


def test_screenshots_are_kept_by_task_episode_and_turn(tmp_path: Path) -> None:
    for _ in range(2):
        texts(ROOMS, ["fill('1', 'x')", "noop()"], screenshots=tmp_path)
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*"))
    names = ("000.png", "001.png", "002.png", "actions.json")
    assert found == [f"page/1-{number}/{name}" for number in (0, 1) for name in names]
    assert (tmp_path / "page/1-0/000.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "page/1-0/000.png").read_bytes() != (tmp_path / "page/1-0/001.png").read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_five_hundred_episodes_leave_no_process_folder_or_memory_behind() -> None:
    async def episodes() -> tuple[list[int], list[int], list[int]]:
        envs = [page_env(ROOMS) for _ in range(4)]
        processes, memory, ours = [], [], []
        for _ in range(125):
            for env in envs:
                await env.reset(TASK, 1)
                await env.step(Action("fill('1', 'x')"))
            ids = children()
            processes.append(len(ids))
            memory.append(sum(map(_kilobytes, ids)))
            ours.append(_kilobytes(os.getpid()))
            assert len(profiles()) == 1
        for env in envs:
            await env.close()
        return processes, memory, ours

    processes, memory, ours = asyncio.run(episodes())
    assert max(processes[-20:]) <= max(processes[5:25]) + 1
    assert min(memory[-20:]) < 1.25 * max(memory[5:25])
    assert ours[-1] < 1.1 * ours[10] + 10_000
    assert profiles() == set()


def _kilobytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
