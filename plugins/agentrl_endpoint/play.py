"""One episode of a user's program.

The program believes that it drives: it asks the model when it likes, and calls `step` to act, or returns an
action. The core drives, too: it shows an observation and waits for an action. Here both meet: a step waits
for the observation that follows, and `act` for the action of the next step.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from agentrl.errors import AgentRLError, ContextFull, TokenBudgetSpent, UsageError
from agentrl.types import Action
from agentrl_endpoint.answers import Answer
from agentrl_endpoint.history import History
from agentrl_endpoint.programs import EpisodeOver, MakeProgram, Program, ProgramFailed
from agentrl_endpoint.requests import Refused, read_request
from agentrl_endpoint.server import Server

T = TypeVar("T")


class Play:
    """Brings a program, its endpoint, and the env together, for one episode."""

    def __init__(self, make_program: MakeProgram, history: History, ignored: tuple[str, ...]) -> None:
        """Begin nothing yet.

        Args:
            make_program: gets the program of this episode.
            history: of what it says to the model.
            ignored: fields of requests that count as left out.
        """
        self._make_program = make_program
        self._history = history
        self._ignored = ignored
        self._speaking = asyncio.Lock()
        self._stepping = asyncio.Lock()
        self._observations: asyncio.Queue[str] = asyncio.Queue()
        self._action: asyncio.Future[Action] | None = None
        self._runner: asyncio.Task[None] | None = None
        self._work: set[asyncio.Task[Any]] = set()
        self._server: Server | None = None
        self._over = False
        self._asked = False
        self._refused: str | None = None
        self._full: ContextFull | None = None
        self._failure: Exception | None = None

    # What the core calls

    async def act(self, observation: str) -> Action:
        """Show the program an observation and return what it does.

        Raises:
            ProgramFailed: it failed, or does what it must not.
            AgentRLError: the model cannot go on.
        """
        if self._failure is not None:
            raise self._failure
        self._action = asyncio.get_running_loop().create_future()
        if self._runner is None:
            await self._begin()
        self._observations.put_nowait(observation)
        return await self._action

    async def close(self) -> None:
        """End the program, and all that is being done for it.

        Raises:
            ProgramFailed: it has acted, but never asked the model.
        """
        self._over = True
        if self._server is not None:
            self._server.shut_out(self)
        working = [*([self._runner] if self._runner else []), *self._work]
        for task in working:
            task.cancel()
        try:
            await asyncio.gather(*working, return_exceptions=True)
        finally:
            if self._server is not None:
                await self._server.leave(self)
        if self._runner is not None and not self._asked and self._failure is None:
            raise _never_asked()

    # What the program calls, through `episode` or HTTP

    async def complete(self, body: object) -> Answer:
        """Let the model answer a request.

        Raises:
            Refused: it cannot be answered.
            EpisodeOver: the episode has ended.
        """
        return await self._while_open(self._complete(body))

    async def step(self, reply: object) -> str:
        """Play what is to be an action, and return the observation that follows.

        Raises:
            ProgramFailed: it is none.
            EpisodeOver: the episode has ended.
        """
        return await self._while_open(self._step(reply))

    def refuse(self, reason: str) -> None:
        """Take note of a request that was refused."""
        self._refused = reason

    # How it is done

    async def _begin(self) -> None:
        self._server = Server.here()
        access = await self._server.enter(self)
        program = self._make_program(access, self.step)
        self._runner = asyncio.create_task(self._run(program), name="agentrl-program")
        self._runner.add_done_callback(self._ended)

    async def _run(self, program: Program) -> None:
        """Let the program answer observations; those that follow its own steps are not seen here."""
        observation = await self._observations.get()
        while True:
            reply = await program(observation)
            if not self._asked and self._refused is None:
                raise _never_asked()
            observation = await self.step(reply)

    def _ended(self, runner: asyncio.Task[None]) -> None:
        if runner.cancelled() or self._over:
            return
        error = runner.exception()
        if isinstance(error, ProgramFailed) and self._full is not None:
            # It did not know how to go on in a full context, as most do not.
            error = self._full
        if isinstance(error, Exception):
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        if self._action is not None and not self._action.done():
            self._action.set_exception(self._failure)

    async def _while_open(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` does, unless the episode ends meanwhile."""
        if self._over:
            work.close()
            raise EpisodeOver("the episode is over")
        task = asyncio.ensure_future(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        try:
            return await task
        except asyncio.CancelledError:
            if self._over:
                raise EpisodeOver("the episode is over") from None
            raise

    async def _step(self, reply: object) -> str:
        async with self._stepping:
            try:
                action = self._checked(reply)
            except ProgramFailed as error:
                self._fail(error)
                raise
            if self._action is None or self._action.done():
                raise EpisodeOver("the episode is over")
            self._action.set_result(action)
            return await self._observations.get()

    def _checked(self, reply: object) -> Action:
        if self._refused is not None:
            raise ProgramFailed(f"the program acted after a request that was refused: {self._refused}")
        if isinstance(reply, str):
            return Action(reply)
        if isinstance(reply, Action):
            return reply
        raise ProgramFailed(f"the program gave {_short(reply)} for an action; it has to be a text")

    async def _complete(self, body: object) -> Answer:
        async with self._speaking:
            try:
                answer = await self._history.ask(read_request(body, self._ignored))
            except Refused as refused:
                self.refuse(str(refused))
                raise
            except AgentRLError as error:
                raise self._refusal(error) from error
            self._asked, self._refused, self._full = True, None, None
            return answer

    def _refusal(self, error: AgentRLError) -> Refused:
        """Return what the program is told where the model cannot go on; what no program can mend ends it."""
        if isinstance(error, ContextFull):
            self._full = error
            return Refused(str(error), "context_length_exceeded")
        if isinstance(error, UsageError):
            self.refuse(str(error))
            return Refused(str(error))
        self._fail(error)
        spent = isinstance(error, TokenBudgetSpent)
        return Refused(str(error), "token_budget_spent" if spent else "engine_failed")


def _never_asked() -> ProgramFailed:
    return ProgramFailed(
        "the program acted without asking the model; give its client the episode's base_url and api_key "
        "(of a command: OPENAI_BASE_URL and OPENAI_API_KEY), and let it ask for chat completions"
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
