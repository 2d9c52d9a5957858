"""The episode: question, searches, answer. See the package for the protocol."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from agentrl.errors import UsageError
from agentrl.interfaces import Env, PluginConfig
from agentrl.lazy_tasks import LazyTasks
from agentrl.text import last_tag, matches_exactly, normalize_answer
from agentrl.types import Action, Need, Observation, Outcome, Task

from .corpus import Passage, read_questions, sha256_of
from .encyclopedia import pose
from .names import RELATIONS, people
from .retrieval import HttpRetriever, Retriever, corpus_retriever, world_retriever

LENGTHS = {"train": 1_000_000, "dev": 10_000, "test": 10_000}
HELP = "Write <search> a query</search> or <answer> the answer</answer>."
NO_SEARCHES = "No searches left. Answer now."


class DeepSearch(Env):
    """Answer questions that take several searches."""

    class Config(PluginConfig):
        """Options."""

        seed: int = Field(default=0, description="of the generated worlds")
        hops: tuple[int, ...] = Field(
            default=(1, 2), min_length=1, description="of generated questions, 1 to 4"
        )
        people: int = Field(default=40, ge=8, le=1000, description="in a generated world")
        corpus: Path | None = Field(
            default=None, description="passages as JSON lines, in place of generated worlds"
        )
        train: Path | None = Field(default=None, description="training questions as JSON lines")
        dev: Path | None = Field(default=None, description="questions to evaluate on, as JSON lines")
        test: Path | None = Field(default=None, description="questions for the final test, as JSON lines")
        retriever: str | None = Field(
            default=None,
            pattern="^https?://",
            description="URL of a retrieval server, in place of the corpus",
        )
        timeout: float = Field(default=30.0, gt=0, description="seconds to wait for the retrieval server")
        cache: Path | None = Field(
            default=None, description="folder for indexes; by default the user's cache folder"
        )
        top_k: int = Field(default=2, ge=1, description="passages a search shows")
        max_searches: int = Field(default=4, ge=0, description="searches before the answer is forced")
        max_invalid: int = Field(
            default=2, ge=1, description="actions in a row that make no sense before the episode ends"
        )
        observation_characters: int = Field(default=2000, ge=100, description="longest result of a search")

        @model_validator(mode="after")
        def _consistent(self) -> Self:
            if not all(1 <= hops <= 4 for hops in self.hops):
                raise ValueError("hops must be from 1 to 4")
            if self.files and not (self.corpus or self.retriever):
                raise ValueError("questions from files need passages too: set env.corpus or env.retriever")
            if (self.corpus or self.retriever) and not self.files:
                raise ValueError("a corpus needs questions: set env.train and env.dev")
            return self

        @property
        def files(self) -> dict[str, Path]:
            """Return the file of each split that has one."""
            named = {"train": self.train, "dev": self.dev, "test": self.test}
            return {split: path for split, path in named.items() if path is not None}

    config: Config
    suggests: ClassVar[Mapping[str, Any]] = {
        "agent": "search",
        "rewards": {"exact_match": 1.0, "f1": 0.0, "cover_em": 0.0, "format": 0.0},
        "simulator.max_turns": 6,
        "simulator.max_new_tokens": 512,
    }
    relations: ClassVar[tuple[str, ...]] = RELATIONS
    provides: ClassVar[frozenset[Need]] = frozenset({"step_keys"})

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the questions of `train`, `dev` or `test`."""
        splits = self.config.files or LENGTHS
        if split not in splits:
            hint = f" (set env.{split}=PATH)" if split in LENGTHS else ""
            raise UsageError(f"no split {split!r}: there is {', '.join(splits)}{hint}")
        if not self.config.files:
            config = self.config
            make = partial(pose, split, seed=config.seed, hops=config.hops, size=config.people)
            return LazyTasks(make, range(LENGTHS[split]))
        questions = read_questions(self.config.files[split], split)
        if self.config.corpus and not self.config.retriever:
            # So that the index is built before any episode begins, and only once.
            corpus_retriever(self.config.corpus, self.config.cache)
        return questions

    def people(self, split: str) -> Sequence[str]:
        """Return the names of everyone who may occur in the generated worlds of a split."""
        return people(split)

    def fingerprint(self) -> Mapping[str, str]:
        """Return the SHA-256 of the corpus and of each file of questions."""
        files = {**self.config.files, **({"corpus": self.config.corpus} if self.config.corpus else {})}
        return {name: sha256_of(path) for name, path in files.items()}

    async def reset(self, task: Task, seed: int) -> Observation:
        """Ask the question. `seed` changes nothing: there is no chance in a search."""
        self._data = task.data
        self._retriever = self._retriever_of(task)
        self._seen: dict[str, Passage] = {}
        self._searches = self._invalid = self._invalid_in_a_row = 0
        self._answer: str | None = None
        return self._observe(f"Question: {task.data['question']}")

    def _retriever_of(self, task: Task) -> Retriever:
        if "world" in task.data:
            return world_retriever(*task.data["world"])
        if self.config.retriever:
            return HttpRetriever(self.config.retriever, self.config.timeout)
        if self.config.corpus is None:
            raise UsageError(f"the task {task.id!r} is from a file: set env.corpus or env.retriever")
        return corpus_retriever(self.config.corpus, self.config.cache)

    async def step(self, action: Action) -> Observation:
        """Search, or take the answer and end; anything else is explained."""
        tag = last_tag(action.text, ("search", "answer"))
        if tag is None or not tag[1]:
            return self._explain()
        self._invalid_in_a_row = 0
        name, content = tag
        if name == "answer":
            self._answer = content
            return self._observe("Done.", done=True)
        if self._searches >= self.config.max_searches:
            return self._observe("No searches left.", done=True)
        return await self._search(content)

    def _explain(self) -> Observation:
        """Say what an action looks like; who does not listen has lost the thread, and the episode ends."""
        self._invalid += 1
        self._invalid_in_a_row += 1
        if self._invalid_in_a_row >= self.config.max_invalid:
            return self._observe("No action understood.", done=True)
        return self._observe(HELP if self._searches < self.config.max_searches else NO_SEARCHES)

    async def _search(self, query: str) -> Observation:
        found = await self._retriever.search(query, self.config.top_k)
        self._searches += 1
        self._seen.update((passage.id, passage) for passage in found)
        text = f"<information>{self._cut(_show(found))}</information>"
        if self._searches >= self.config.max_searches:
            text += f"\n{NO_SEARCHES}"
        return self._observe(text)

    def _cut(self, text: str) -> str:
        extra = len(text) - self.config.observation_characters
        return text if extra <= 0 else f"{text[:-extra]} ... ({extra} characters cut)"

    def _observe(self, text: str, done: bool = False) -> Observation:
        """Show `text`. What the agent has seen and may still do is all the state there is."""
        state = [self._data["question"], sorted(self._seen), self._searches, done, self._answer]
        key = hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]
        return Observation(text, done, key)

    async def judge(self) -> Outcome:
        """Compare the answer with the golden ones, exactly after normalisation."""
        golden = tuple(self._data["golden_answers"])
        seen = (
            f" {normalize_answer(' '.join(f'{found.title} {found.text}' for found in self._seen.values()))} "
        )
        metrics = {
            "searches": float(self._searches),
            "invalid_actions": float(self._invalid),
            "retrieved_gold": float(any(f" {normalize_answer(answer)} " in seen for answer in golden)),
        }
        return Outcome(matches_exactly(self._answer, golden), self._answer, golden, metrics=metrics)

    def demonstrate(self, task: Task) -> Sequence[str] | None:
        """Return the searches, thoughts and answer that the question's decomposition spells out.

        Every thought restates what was looked up and what was found, so that each step is a look-up in
        what stands just before: this is what a small model can imitate.
        """
        steps = task.data.get("metadata", {}).get("decomposition")
        if not steps or len(steps) > self.config.max_searches:
            return None
        texts: list[str] = []
        answers: list[str] = []
        thought = ""
        for step in steps:
            query = _fill(step.get("search", step["question"]), answers)
            texts.append(f"{thought}<search> {query}</search>")
            fact = _fill(step["question"], answers)
            answers.append(step["answer"])
            thought = f"<think> {fact} {step['answer']}</think>"
        # The last step's answer may be one spelling of several.
        known = matches_exactly(answers[-1], task.data["golden_answers"])
        final = answers[-1] if known else task.data["golden_answers"][0]
        return [*texts, f"{thought}<answer> {final}</answer>"]


def _fill(text: str, answers: Sequence[str]) -> str:
    """Return `text` with `#1`, `#2` and so on replaced by the answers found so far."""
    for number in range(len(answers), 0, -1):
        text = text.replace(f"#{number}", answers[number - 1])
    return text


def _show(passages: Sequence[Passage]) -> str:
    lines = [f"Doc {n}(Title: {found.title}) {found.text}" for n, found in enumerate(passages, start=1)]
    return "\n".join(lines) or "No documents match."
