"""The reward `llm_judge`: its options, and how a score comes about."""

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakValueDictionary

from pydantic import Field, model_validator

from agentrl.errors import AgentRLError, Unjudged
from agentrl.extras import require
from agentrl.interfaces import PluginConfig, Reward
from agentrl.types import Trajectory
from agentrl_llm_judge.audit import Audit
from agentrl_llm_judge.cache import Cache, Reply, default_folder, key_of
from agentrl_llm_judge.prompts import REMINDER, Template, fields_of, read_score

if TYPE_CHECKING:
    from agentrl_llm_judge.client import Client


class LLMJudge(Reward):
    """How right a language model finds the answer, 0 to 1; 0 without an answer, or a right one to compare."""

    class Config(PluginConfig):
        """Options."""

        endpoint: str = Field(
            pattern="^https?://", description="an OpenAI-compatible API, such as http://127.0.0.1:8000/v1"
        )
        model: str = Field(description="the name by which the endpoint knows the model that judges")
        key_variable: str = Field(
            default="OPENAI_API_KEY", description="the environment variable that holds the API key, if any"
        )
        template: Path | None = Field(
            default=None,
            description="a file to ask with in place of the built-in prompt; it may use {question}, "
            "{references}, {answer}, {transcript} and {mark}",
        )
        threshold: float | None = Field(
            default=None,
            gt=0,
            le=1,
            description="from here on a score is 1, below it 0; null: as it is",
        )
        temperature: float = Field(default=0.0, ge=0, description="of the judge")
        max_tokens: int = Field(default=512, ge=1, description="of a reply")
        more: dict[str, Any] = Field(
            default={},
            description="further fields of requests; null leaves out one of ours, such as temperature",
        )
        longest: int = Field(default=8000, ge=100, description="characters of each field that are shown")
        concurrency: int = Field(default=16, ge=1, description="requests at once")
        attempts: int = Field(default=5, ge=1, description="how often a request is made until it succeeds")
        timeout: float = Field(default=120.0, gt=0, description="seconds an answer may take")
        pause: float = Field(
            default=1.0, ge=0, description="seconds before the second attempt; doubled each time"
        )
        cache: Path | None = Field(
            default=None, description="folder of the verdicts; null: agentrl/llm_judge in your cache folder"
        )
        audit: float = Field(
            default=0.02, ge=0, le=1, description="share of the verdicts that is written down to be checked"
        )
        audit_first: int = Field(default=20, ge=0, description="how many of the first verdicts are, too")

        @model_validator(mode="after")
        def _usable(self) -> Self:
            Template.load(self.template)
            return self

    config: Config

    def __init__(self, config: Any = None) -> None:
        """Take a `Config`; endpoint and model have no defaults.

        Raises:
            UsageError: the HTTP library is not installed.
        """
        super().__init__(config)
        require("aiohttp", "the reward 'llm_judge'", "agentrl-platform[llm_judge]")
        self._template = Template.load(self.config.template)
        self.needs_references = "references" in self._template.uses
        self._cache = Cache(self.config.cache or default_folder())
        self._client: Client | None = None
        self._audit: Audit | None = None
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def start(self, folder: Path | None) -> None:
        """Connect, and say in `folder` who judges.

        Raises:
            UsageError: nobody answers.
        """
        from agentrl_llm_judge.client import Client, Limits

        config = self.config
        limits = Limits(config.attempts, config.concurrency, config.timeout, config.pause)
        self._client = Client(config.endpoint, os.environ.get(config.key_variable), limits)
        await self._client.check()
        if folder is not None:
            self._audit = Audit(folder, config.audit, config.audit_first)
            self._audit.describe(
                {
                    **config.model_dump(mode="json", include={"endpoint", "model", "temperature", "more"}),
                    "prompt_version": self._template.version,
                    "prompt": self._template.text,
                }
            )

    async def score(self, trajectory: Trajectory) -> float:
        """Return the score.

        Raises:
            Unjudged: the endpoint does not answer, or not in a way that can be read.
        """
        fields = fields_of(trajectory, self.config.longest)
        if any(name in self._template.uses and not fields[name].strip() for name in ("answer", "references")):
            return 0.0
        body = self._body(self._template.fill(fields))
        key = key_of(self.config.endpoint, body)
        # Trajectories of a group often end in the same answer: the second waits for the first's verdict.
        async with self._asking.setdefault(key, asyncio.Lock()):
            reply, score = await self._judge(key, body)
        if self._audit:
            self._audit.note(key, self._row(trajectory, fields, reply, score))
        threshold = self.config.threshold
        return score if threshold is None else float(score >= threshold)

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()

    async def _judge(self, key: str, body: dict[str, Any]) -> tuple[Reply, float]:
        """Return the reply and the score in it, from the cache or the endpoint."""
        kept = self._cache.get(key)
        score = read_score(kept.text) if kept else None
        if kept and score is not None:
            return kept, score
        if self._client is None:
            raise AgentRLError("the judge has not been started: call `start` first, and `close` at the end")
        reply = await self._client.ask(body)
        score = read_score(reply.text)
        if score is None:
            said = [{"role": "assistant", "content": reply.text}, {"role": "user", "content": REMINDER}]
            reply = await self._client.ask({**body, "messages": [*body["messages"], *said]})
            score = read_score(reply.text)
        if score is None:
            raise Unjudged(f"the judge's reply has no line 'SCORE: number': {reply.text[-200:]!r}")
        await self._cache.put(key, reply, self.config.endpoint, body)
        return reply, score

    def _body(self, prompt: str) -> dict[str, Any]:
        """Return the request: all of it goes into the key of the cache."""
        config = self.config
        fields = {
            "model": config.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": config.temperature,
            "max_tokens": config.max_tokens,
            **config.more,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def _row(
        self, trajectory: Trajectory, fields: dict[str, str], reply: Reply, score: float
    ) -> dict[str, Any]:
        """Return what people need to check a verdict."""
        return {
            "task": trajectory.task.id,
            "score": score,
            "success": trajectory.outcome is not None and trajectory.outcome.success,
            **{name: fields[name] for name in ("question", "references", "answer")},
            **({"transcript": fields["transcript"]} if "transcript" in self._template.uses else {}),
            "reply": reply.text,
            "model": reply.model,
            "prompt_version": self._template.version,
        }
