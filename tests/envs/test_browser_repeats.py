"""What is done again leads to the same: keys of actions and states, virtual time, pages played in again."""

# ruff: noqa: E501 - lines of HTML and JavaScript

import asyncio

import pytest

from agentrl import Action, Observation
from pages import ROOMS, TASK, body, page_env, play, texts

pytestmark = pytest.mark.usefixtures("browser")


# Keys of actions and states


def test_an_action_has_a_key_that_does_not_depend_on_numbers() -> None:
    html = body("<button>A</button><button>B</button><button>A</button>")
    seen = asyncio.run(play(page_env(html), ["click('3')", "click('9')", "click(bid='1')", "done()"]))
    keys = [each.action_key for each in seen]
    assert keys == [None, "click(button 'A' #2)", "click('9')", "click(button 'A')", "done()"]


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
