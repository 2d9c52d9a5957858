"""The env: which pages with which seeds, how a page is begun, and what counts as success."""

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from hashlib import sha256
from typing import Any, ClassVar

from pydantic import Field

from agentrl import Expert, LazyTasks, Outcome, Task, UsageError
from agentrl.options import nearest
from agentrl_browser import BrowserConfig, BrowserEnv, Page, Scene

from .experts import EXPERTS, expert_for
from .pages import Pages, folder, names

ALL = "all"
# Seeds of a page: where those of a split begin, and how many there are.
SEEDS = {"train": (0, 1_000_000), "dev": (1_000_000_000, 10_000), "test": (2_000_000_000, 10_000)}
# The display of rewards is not for the agent, and the goal is told above the page.
TIDY = """
document.addEventListener("DOMContentLoaded", () => {
  const style = document.createElement("style");
  style.textContent = "#reward-display, #click-canvas { display: none !important }";
  document.head.append(style);
  const query = document.getElementById("query");
  if (query) query.setAttribute("aria-hidden", "true");
}, { once: true });
"""
# An hour and more, so that a page never ends by itself.
BEGIN = """(() => {
  Math.seedrandom(%d);
  core.EPISODE_MAX_TIME = 1e7;
  core.startEpisodeReal();
  // Where an episode is over, a click would begin another one.
  core.cover_div.onclick = null;
  const said = core.getUtterance();
  return typeof said === "string" ? said : said.utterance;
})()"""
RESULT = "[WOB_DONE_GLOBAL, WOB_RAW_REWARD_GLOBAL]"
FULL = 1.0
# Pages that show what the episode before did to them, so that they are always loaded anew.
FORGETS_NOT = frozenset(
    f"/miniwob/{page}.html"
    for page in (
        "book-flight",
        "book-flight-nodelay",
        "scroll-text",
        "scroll-text-2",
        "search-engine",
        "social-media",
        "use-autocomplete",
        "use-autocomplete-nodelay",
        "use-spinner",
    )
)

# What so small a model as the built-in one can be taught in half an hour.
WITHIN_REACH = (
    "click-test",
    "click-test-2",
    "enter-password",
    "enter-text",
    "enter-text-dynamic",
    "focus-text",
    "focus-text-2",
    "login-user",
)


class MiniWoB(BrowserEnv):
    """Reach the goal of a small web page of MiniWoB++."""

    class Config(BrowserConfig):
        """Options."""

        width: int = Field(default=500, ge=100, le=4096, description="of the page, in pixels")
        height: int = Field(default=400, ge=100, le=4096, description="of the page, in pixels")
        pages: tuple[str, ...] = Field(
            default=tuple(EXPERTS),
            min_length=1,
            description=f"to play, such as click-test; [{ALL}] for all; if not given, those with an expert",
        )
        in_page: bool = Field(
            default=False,
            description="whether a page that is played again begins anew without being loaded: many times as "
            "fast; it looks the same, but state keys differ, and what its scripts remember stays",
        )
        held_out_pages: tuple[str, ...] = Field(
            default=(), description="never trained on: if given, dev and test are of these pages only"
        )

    config: Config
    suggests: ClassVar[Mapping[str, Any]] = {
        **BrowserEnv.suggests,
        "model": "tiny_web",
        "simulator.max_turns": 10,
    }
    suggests_with: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny_web": {
            **BrowserEnv.suggests_with["tiny_web"],
            "env.pages": WITHIN_REACH,
            "warmup": 8,
            "steps": 60,
            # Pages that fail more often are played more often.
            "curriculum": "harder_first",
            "curriculum.by": "labels",
            "curriculum.sharpness": 0.0,
            "curriculum.floor": 0.3,
            "curriculum.half_life": 4.0,
            # It copies texts that mean nothing, and one wrong character is the end: what it would rather
            # write is measured, while chance shows it what else there is.
            "evaluation.temperature": 0.0,
            # Three actions solve each of them.
            "simulator.max_turns": 5,
        }
    }

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the pages of a split, each with seeds that no other split has, page by page in turn."""
        if split not in SEEDS:
            raise UsageError(f"no split {split!r}: there is {', '.join(SEEDS)}")
        trained, held_out = self._pages
        pages = trained if split == "train" or not held_out else held_out
        return LazyTasks(partial(_task_at, split, pages), range(len(pages) * SEEDS[split][1]))

    @cached_property
    def _pages(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the pages to train on, and those that are held out."""
        held_out = _known(self.config.held_out_pages)
        chosen = names() if ALL in self.config.pages else _known(self.config.pages)
        trained = tuple(page for page in chosen if page not in held_out)
        if not trained:
            raise UsageError("env.held_out_pages leaves no page to train on; name more in env.pages")
        return trained, held_out

    def pose(self, task: Task, seed: int) -> Scene:
        """Return the task's page. `seed` changes nothing: the page's own is in the task."""
        self._seed = int(task.data["seed"])
        return Scene(Pages(), path=f"/miniwob/{task.data['page']}.html", script=TIDY, settle_ms=100)

    def plays_again(self, scene: Scene, before: Scene) -> bool:
        """Return whether the page is the same, and one that forgets what happened in it."""
        return self.config.in_page and scene.path == before.path and scene.path not in FORGETS_NOT

    async def begin(self, page: Page, scene: Scene) -> str:
        """Draw the problem, and return what the page says is to be done."""
        goal = await page.evaluate(BEGIN % self._seed)
        await page.clock.run(self.config.step_ms)
        return str(goal)

    async def finished(self, page: Page) -> bool:
        """Return whether the page has given its reward."""
        return bool((await page.evaluate(RESULT))[0])

    async def judge(self) -> Outcome:
        """Return whether the page gave its full reward; what it gave, perhaps less than 0, is a metric."""
        done, raw = await self.page.evaluate(RESULT)
        reward = float(raw) if done else 0.0
        metrics = {"raw_reward": reward, "actions": float(self.turns), "errors": float(self.errors)}
        return Outcome(bool(done) and reward >= FULL, metrics=metrics)

    def demonstrate(self, task: Task) -> Expert | None:
        """Return an expert that has to look at the page as well, for the pages that have one."""
        return expert_for(str(task.data["page"]))

    def fingerprint(self) -> Mapping[str, str]:
        """Return the hash of all pages, and of the scripts that they share."""
        hashed = sha256()
        for path in sorted(path for path in folder().rglob("*") if path.is_file()):
            hashed.update(path.read_bytes())
        return {"pages": hashed.hexdigest()}


def _task_at(split: str, pages: Sequence[str], index: int) -> Task:
    """Return a task of a split: all pages with their first seed, then all with their second, and so on."""
    number, place = divmod(index, len(pages))
    page, seed = pages[place], SEEDS[split][0] + number
    return Task(f"{page}/{seed}", split, {"page": page, "seed": seed}, page, labels={"page": page})


def _known(pages: Sequence[str]) -> tuple[str, ...]:
    """Return the pages as they are.

    Raises:
        UsageError: there is no such page; the message suggests the nearest.
    """
    for page in pages:
        if page not in names():
            near = nearest(page, names())
            hint = f"did you mean {near!r}?" if near else "see the package miniwob for their names"
            raise UsageError(f"MiniWoB++ has no page {page!r}; {hint}")
    return tuple(dict.fromkeys(pages))
