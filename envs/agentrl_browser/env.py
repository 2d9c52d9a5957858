"""The base of envs that are played in a page: a subclass says what to open and how it is judged.

All episodes of this process share a browser. An episode has a page that is as good as new: in a context of
its own, or in one where all that an earlier episode stored has been deleted. What the agent sees is a
snapshot of the page as text; what it does is a call such as `click('12')`, see `actions`.
"""

import hashlib
import json
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from agentrl import Action, Env, Observation, PluginConfig, Task
from agentrl.types import Need

from .actions import Call, NotAnAction, help_text, parse, tool_schemas
from .browser import Lease, lease
from .clock import NEW_YEAR
from .page import Page, PageOptions, Snapshot
from .perform import LONGEST_WAIT_MS, perform
from .site import Site

SYSTEM = f"""\
You use a web page to reach a goal. You see the page as text: a line an element, those you can act on with \
their number, [12]; instead of its number, an element may be called by its name, where no other has it, or \
by role and name as listed. Reply with one action and nothing after it. The actions are:
{help_text()}"""


@dataclass(frozen=True, slots=True)
class Scene:
    """What an episode begins with.

    Attributes:
        site: what the page can reach, and where it comes from.
        goal: what the agent is told to do; "" if `begin` finds it in the page.
        path: of the first page.
        script: runs in every document before the page's own.
        time: at which it begins, in seconds since 1970, where time is virtual.
        settle_ms: that pass before the first observation.
    """

    site: Site
    goal: str = ""
    path: str = "/"
    script: str = ""
    time: float = NEW_YEAR
    settle_ms: int = 500


class BrowserConfig(PluginConfig):
    """Options that all envs of pages share."""

    executable: str | None = Field(default=None, description="the browser; looked for if not given")
    real_time: bool = Field(default=False, description="whether pages run in real time, not reproducibly")
    step_ms: int = Field(default=500, ge=1, le=60_000, description="that pass in the page after an action")
    width: int = Field(default=1024, ge=100, le=4096, description="of the page, in pixels")
    height: int = Field(default=768, ge=100, le=4096, description="of the page, in pixels")
    characters: int = Field(default=12_000, ge=200, description="of an observation, before it is cut")
    repeat_goal: bool = Field(default=False, description="whether every observation tells the goal again")
    max_invalid: int = Field(
        default=10, ge=1, description="replies in a row that are no action before the episode ends"
    )
    seconds: float = Field(default=1800.0, gt=0, description="that a page may live, in real time")
    screenshots: Path | None = Field(
        default=None, description="folder that gets a picture of every observation, by task and episode"
    )


class BrowserEnv(Env):
    """Play in a page. Subclasses give `tasks`, `pose` and `judge`."""

    class Config(BrowserConfig):
        """Options."""

    config: BrowserConfig
    scene: Scene
    # Whether scripts of its pages may know what their documents do not show: then states are told apart by
    # what was done, too.
    remembers: ClassVar[bool] = True
    provides: ClassVar[frozenset[Need]] = frozenset({"step_keys"})
    checked_with: ClassVar[Mapping[str, Any]] = {"tasks": 2, "seconds": 120.0}
    suggests: ClassVar[Mapping[str, Any]] = {
        "agent": "chat",
        "agent.system": SYSTEM,
        "rewards": {"success": 1.0},
        "simulator.workers": 0,
        "simulator.concurrency": 4,
        "simulator.max_turns": 30,
        "simulator.max_new_tokens": 128,
    }
    tools: ClassVar[Sequence[Mapping[str, Any]]] = tool_schemas()
    # It imitates experts a little first.
    suggests_with: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tiny_web": {
            "warmup_learning_rate": 1e-3,
            "trainer.learning_rate": 2e-4,
            "trainer.warmup_steps": 5,
            "trainer.schedule": "linear",
            "trainer.betas": (0.9, 0.99),
            "trainer.minibatches": 2,
            "tasks_per_step": 16,
            "group_size": 8,
            "simulator.concurrency": 16,
            "simulator.max_turns": 8,
            "simulator.max_new_tokens": 48,
        }
    }

    def __init__(self, config: Any = None) -> None:
        """Open nothing yet."""
        super().__init__(config)
        self._lease: Lease | None = None
        self._page: Page | None = None
        self._seen = ""

    # What subclasses say

    @abstractmethod
    def pose(self, task: Task, seed: int) -> Scene:
        """Return what to open; same task and seed, same scene."""

    def plays_again(self, scene: Scene, before: Scene) -> bool:
        """Return whether `scene` can be begun in the page of the episode `before`, without loading it anew.

        That is fast, and right only where `begin` makes a page forget whatever happened in it.
        """
        return False

    async def begin(self, page: Page, scene: Scene) -> str:
        """Do what is to be done once the page is loaded; return the goal."""
        return scene.goal

    async def finished(self, page: Page) -> bool:
        """Return whether the page itself says that the episode is over. Asked after every action."""
        return False

    # What they can ask

    @property
    def page(self) -> Page:
        """Return the page of this episode."""
        if self._page is None:
            raise RuntimeError("no episode has begun")
        return self._page

    # The episode

    async def reset(self, task: Task, seed: int) -> Observation:
        """Open the scene's page, and show it with the goal."""
        scene = self.pose(task, seed)
        again = self._page is not None and self.plays_again(scene, self.scene)
        self.scene = scene
        self.ending: Call | None = None
        self.turns = self.errors = self._invalid = 0
        self._done: list[str | None] = []
        self._album = _Album.of(self.config.screenshots, task.id, seed)
        if not (again and await self.page.restart(scene.path)):
            await self._load(seed)
        self.goal = await self.begin(self.page, self.scene)
        return await self._observe([f"Goal: {self.goal}"])

    async def _load(self, seed: int) -> None:
        """Load the scene in a page that is as good as new."""
        options = self._options(seed)
        if self._page is None or not await self._page.renew(self.scene.site, options):
            await self._close_page()
            self._lease = self._lease or lease(self.config.executable)
            self._page = await self._lease.open(self.scene.site, options)
        await self._page.navigate(self.scene.path)
        await self._page.clock.run(self.scene.settle_ms)
        self._page.clock.restart()

    def _options(self, seed: int) -> PageOptions:
        config = self.config
        return PageOptions(
            script=self.scene.script,
            seed=seed % 2**32,
            time=self.scene.time,
            real_time=config.real_time,
            width=config.width,
            height=config.height,
            seconds=config.seconds,
            characters=config.characters,
        )

    async def step(self, action: Action) -> Observation:
        """Act in the page; what cannot be done is explained."""
        self.turns += 1
        self._album.note(action.text)
        try:
            call = parse(action.text)
        except NotAnAction as error:
            return await self._explain(str(error))
        self._invalid = 0
        if call.ends:
            self.ending = call
            return await self._observe(["The episode is over."], done=True, action_key=str(call))
        performed = await perform(self.page, call, self._seen)
        await self.page.clock.run(self._wait(call))
        self.errors += bool(performed.error)
        head = [f"Error: {performed.error}"] if performed.error else []
        done = await self.finished(self.page)
        return await self._observe(head, done=done, action_key=performed.key)

    def _wait(self, call: Call) -> int:
        """Return how much time passes after an action, in ms."""
        if call.name != "noop":
            return self.config.step_ms
        return max(1, min(LONGEST_WAIT_MS, int(call.arguments["wait_ms"])))

    async def _explain(self, error: str) -> Observation:
        """Say what can be done; who never listens has lost the thread, and the episode ends."""
        self.errors += 1
        self._invalid += 1
        done = self._invalid >= self.config.max_invalid
        return await self._observe([f"Error: {error}"], done=done, action_key="")

    async def _observe(
        self, head: list[str], *, done: bool = False, action_key: str | None = None
    ) -> Observation:
        """Show the page below `head`."""
        seen = await self.page.snapshot()
        head += [f"Note: {note}" for note in self.page.notes()]
        if self.config.repeat_goal and head[:1] != [f"Goal: {self.goal}"]:
            head.insert(0, f"Goal: {self.goal}")
        await self._album.keep(self.page, self.turns)
        self._seen = seen.text
        self._done.append(action_key)
        text = "\n".join([*head, seen.text])
        return Observation(text, done, self._state_key(seen, done), action_key)

    def _state_key(self, seen: Snapshot, done: bool) -> str:
        """Identify page, backend, and how much time has passed: timers may be pending."""
        state = [seen.digest, self.scene.site.state_key(), self.page.clock.elapsed, self._invalid, done]
        if self.remembers:
            state.append(self._done)
        return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]

    async def _close_page(self) -> None:
        page, self._page = self._page, None
        if page is not None:
            await page.close()

    async def close(self) -> None:
        """Close the page, and the browser with the last env that uses it."""
        try:
            await self._close_page()
        finally:
            if self._lease is not None:
                self._lease.close()
                self._lease = None


@dataclass(slots=True)
class _Album:
    """Keeps pictures of an episode: `<folder>/<task>/<seed>-<n>/<turn>.png`, with its actions beside them."""

    folder: Path | None
    actions: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, folder: Path | None, task: str, seed: int) -> "_Album":
        """Begin an album; `n` counts the episodes of one task and seed."""
        if folder is None:
            return cls(None)
        of_task = folder / re.sub(r"[^\w.-]+", "_", task)
        number = 0
        while True:
            own = of_task / f"{seed}-{number}"
            try:
                own.mkdir(parents=True)
            except FileExistsError:
                number += 1
            else:
                return cls(own)

    def note(self, action: str) -> None:
        """Keep what the agent wrote."""
        if self.folder is not None:
            self.actions.append(action)
            (self.folder / "actions.json").write_text(json.dumps(self.actions, indent=1))

    async def keep(self, page: Page, turn: int) -> None:
        """Keep a picture of the page after `turn` actions."""
        if self.folder is not None:
            (self.folder / f"{turn:03}.png").write_bytes(await page.screenshot())
