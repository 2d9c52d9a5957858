"""MiniWoB++: every page starts and can be acted on, experts solve theirs, and only full rewards count."""

import asyncio
import os
import re
from collections.abc import Sequence

import pytest

from agentrl import Action, Observation, Outcome, Task, UsageError
from agentrl.expert import expert_of
from agentrl_browser import Request, Response, View
from agentrl_miniwob import MiniWoB
from agentrl_miniwob.experts import EXPERTS
from agentrl_miniwob.pages import Pages, names

pytestmark = pytest.mark.usefixtures("browser")
try:
    names()
except UsageError as missing:
    pytest.skip(str(missing), allow_module_level=True)

# Of the slow tests of experts, a page each.
SEEDS = int(os.environ.get("AGENTRL_MINIWOB_SEEDS", "100"))
# Their goal is reached by the mouse alone, somewhere on a drawing.
DRAWN: set[str] = set()


def env(*pages: str, **options: object) -> MiniWoB:
    return MiniWoB(MiniWoB.Config(**({"pages": pages} if pages else {}), **options))


def task(page: str, seed: int) -> Task:
    return Task(f"{page}/{seed}", data={"page": page, "seed": seed})


async def play(
    played: MiniWoB, one: Task, actions: Sequence[str] | None = None, seed: int = 0
) -> tuple[list[str], Outcome]:
    """Play `actions`, or what the expert does."""
    expert = expert_of(played, one) if actions is None else None
    seen = [await played.reset(one, seed)]
    script = iter(actions or ())
    while not seen[-1].done and len(seen) < 20:
        text = expert(seen[-1]) if expert else next(script, None)
        if text is None:
            break
        seen.append(await played.step(Action(text)))
    return [each.text for each in seen], await played.judge()


def played(page: str, seed: int, actions: Sequence[str]) -> tuple[list[str], Outcome]:
    async def episode() -> tuple[list[str], Outcome]:
        made = env(page)
        try:
            return await play(made, task(page, seed), actions)
        finally:
            await made.close()

    return asyncio.run(episode())


# Tasks


def test_there_are_130_pages() -> None:
    assert len(names()) == 130
    assert set(EXPERTS) <= set(names())


def test_splits_share_no_seed_and_take_the_pages_in_turn() -> None:
    both = env("click-test", "click-link")
    first = [each.id for each in both.tasks("train")[:3]]
    assert first == ["click-test/0", "click-link/0", "click-test/1"]
    assert both.tasks("test")[-1].id == "click-link/2000009999"
    assert both.tasks("dev")[0].labels == {"page": "click-test"}


def test_pages_can_be_held_out() -> None:
    apart = env("click-test", "click-link", held_out_pages=("click-link", "click-tab"))
    assert {each.data["page"] for each in apart.tasks("train")[:9]} == {"click-test"}
    assert {each.data["page"] for each in apart.tasks("dev")[:9]} == {"click-link", "click-tab"}
    with pytest.raises(UsageError, match="leaves no page to train on"):
        env("click-test", held_out_pages=("click-test",)).tasks("train")


def test_an_unknown_page_is_an_error_that_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="no page 'click-tset'; did you mean 'click-test"):
        env("click-tset").tasks("train")
    assert len(env("all").tasks("dev")) == 130 * 10_000


def test_only_files_of_the_pages_are_served() -> None:
    assert Pages().answer(Request("GET", "/miniwob/click-test.html")).status == 200
    for path in ("/../registration.py", "/%2e%2e/registration.py", "//etc/passwd", "/", "/miniwob"):
        assert Pages().answer(Request("GET", path)).status == 404, path


# Episodes


def test_the_goal_is_what_the_page_says_and_its_display_is_not_shown() -> None:
    [seen], outcome = played("click-button", 3, [])
    assert re.match(r'Goal: Click on the ".*" button\.\nRootWebArea', seen)
    assert "Time left" not in seen
    assert "Click on" not in seen.partition("\n")[2]
    assert not outcome.success


def test_a_wrong_click_ends_the_episode_without_success() -> None:
    seen, outcome = played("click-test-2", 0, [])
    wrong = next(m[1] for m in re.finditer(r"\[(\d+)\] button 'TWO'", seen[0]))
    _, outcome = played("click-test-2", 0, [f"click('{wrong}')", "noop()"])
    assert (outcome.success, outcome.metrics["raw_reward"], outcome.metrics["actions"]) == (False, -1.0, 1.0)


def test_partial_credit_is_a_metric_and_no_success() -> None:
    """This page gives a part of its reward for every box that is as it should be."""

    async def all_but_the_last(made: MiniWoB, seed: int) -> Outcome:
        seen = await made.reset(task("click-checkboxes-large", seed), 0)
        wanted = (
            seen.text.partition("\n")[0].removeprefix("Goal: Select ").rpartition(" and click")[0].split(", ")
        )
        view = View.of(seen.text)
        boxes = [each.bid for each in view.all(role="checkbox") if each.name in wanted]
        for bid in [*boxes[:-1], view.first(role="button").bid]:
            await made.step(Action(f"click({bid!r})"))
        return await made.judge()

    async def episodes() -> list[Outcome]:
        made = env("click-checkboxes-large")
        try:
            return [await all_but_the_last(made, seed) for seed in range(3)]
        finally:
            await made.close()

    for outcome in asyncio.run(episodes()):
        assert 0 < outcome.metrics["raw_reward"] < 1
        assert not outcome.success


def test_the_same_task_gives_the_same_episode_whatever_the_seed_and_what_was_played_before() -> None:
    async def episodes() -> list[tuple[list[str], Outcome]]:
        one = env("login-user")
        other = env("login-user")
        first = await play(one, task("login-user", 7))
        await play(one, task("login-user", 8), ["click('1')"])
        runs = [first, await play(one, task("login-user", 7), seed=1)]
        both = (play(each, task("login-user", 7), seed=place) for place, each in enumerate((one, other), 2))
        runs += await asyncio.gather(*both)
        await one.close()
        await other.close()
        return runs

    runs = asyncio.run(episodes())
    assert all(run == runs[0] for run in runs)
    assert runs[0][1].success


def test_who_clicks_twice_does_not_begin_another_episode() -> None:
    for seed in range(3):
        for name, reward in (("ONE", 1.0), ("TWO", -1.0)):
            seen, outcome = played("click-test-2", seed, [f"dblclick({name!r})", "click('ONE')"])
            assert len(seen) == 2
            assert (outcome.success, outcome.metrics["raw_reward"]) == (reward == 1.0, reward)


def test_scripts_that_a_page_has_are_not_loaded_again_and_it_looks_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    answer = Pages.answer

    def noted(self: Pages, request: Request) -> Response:
        asked.append(request.path)
        return answer(self, request)

    monkeypatch.setattr(Pages, "answer", noted)

    async def episodes() -> list[list[str]]:
        made = env("click-tab", "login-user")
        try:
            return [(await play(made, task(page, 5), []))[0] for page in ("click-tab", "login-user") * 2]
        finally:
            await made.close()

    first, other, again, *_ = asyncio.run(episodes())
    assert (first, other) == (again, played("login-user", 5, [])[0])
    assert asked.count("/miniwob/click-tab.html") == 2
    assert asked.count("/core/core.js") < asked.count("/miniwob/login-user.html")


def test_a_page_that_begins_anew_without_being_loaded_looks_as_if_it_were() -> None:
    async def episodes(**options: object) -> list[tuple[list[str], Outcome]]:
        made = env("login-user", "click-tab", **options)
        try:
            order = [
                ("login-user", 1),
                ("login-user", 2),
                ("click-tab", 1),
                ("click-tab", 2),
                ("login-user", 2),
            ]
            await play(made, task("login-user", 3), ["fill('1', 'left')", "noop()"])
            return [await play(made, task(*each)) for each in order]
        finally:
            await made.close()

    fast = asyncio.run(episodes(in_page=True))
    assert fast == asyncio.run(episodes())
    assert all(outcome.success for _, outcome in fast)


@pytest.mark.parametrize("page", EXPERTS)
def test_its_expert_solves_a_page(page: str) -> None:
    assert solved(page, range(2)) == [True] * 2


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("page", EXPERTS)
def test_its_expert_solves_a_page_with_any_seed(page: str) -> None:
    assert all(solved(page, range(SEEDS)))


def solved(page: str, seeds: range) -> list[bool]:
    async def episodes() -> list[bool]:
        made = env(page)
        try:
            return [(await play(made, task(page, seed)))[1].success for seed in seeds]
        finally:
            await made.close()

    return asyncio.run(episodes())


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_every_page_starts_reaches_only_its_site_and_gives_something_to_act_on() -> None:
    async def begin(made: MiniWoB, page: str) -> tuple[Observation, list[str]]:
        return await made.reset(task(page, 0), 0), made.page.refused

    async def episodes() -> dict[str, tuple[Observation, list[str]]]:
        made = env("all")
        try:
            return {page: await begin(made, page) for page in names()}
        finally:
            await made.close()

    begun = asyncio.run(episodes())
    assert {page for page, (seen, _) in begun.items() if not re.search(r"\[\d+\] ", seen.text)} == DRAWN
    assert [page for page, (_, refused) in begun.items() if refused] == []
    assert [page for page, (seen, _) in begun.items() if not re.match(r"Goal: \S", seen.text)] == []
