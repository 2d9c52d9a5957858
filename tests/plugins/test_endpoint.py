"""The agent `endpoint`: what programs ask through the official client is trained just as it was sampled."""

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from agentrl import Action, Completion, Env, Observation, Outcome, Sampling, Task, Trajectory
from agentrl.config import SimulatorConfig
from agentrl.errors import UsageError
from agentrl.hooks import Hooks
from agentrl.hosting.pool import InProcessPool
from agentrl.interfaces import Engine, Resources
from agentrl.plugins import make
from agentrl.simulator import Simulator
from agentrl.testing import ByteTokenizer, ScriptedEngine, check_agent
from agentrl.types import Segment
from agentrl_endpoint import Call, Endpoint, ToolFormat

needs = "install agentrl's extra 'endpoint', and openai, to try it"
pytest.importorskip("aiohttp", reason=needs)
pytest.importorskip("openai", reason=needs)

PROGRAMS = Path(__file__).with_name("endpoint_programs.py")


@dataclass(frozen=True)
class Sampled:
    """What an engine was given, and what it sampled."""

    given: list[int]
    completion: Completion
    session: str


def listening(engine: Engine) -> list[Sampled]:
    """Return a list that grows by everything that `engine` samples."""
    heard: list[Sampled] = []
    generate = engine.generate

    async def listen(token_ids: Sequence[int], sampling: Sampling, session: str) -> Completion:
        given = list(token_ids)
        completion = await generate(given, sampling, session)
        heard.append(Sampled(given, completion, session))
        return completion

    engine.generate = listen  # type: ignore[method-assign]
    return heard


def recorded(segments: Sequence[Segment]) -> list[tuple[list[int], list[int], list[float]]]:
    """Return of every span what stands before it, its ids and its log-probabilities."""
    return [
        (segment.token_ids[: span.start], segment.token_ids[span.start : span.stop], span.logprobs)
        for segment in segments
        for span in segment.spans
    ]


def as_sampled(heard: Sequence[Sampled]) -> list[tuple[list[int], list[int], list[float]]]:
    return [(each.given, each.completion.token_ids, each.completion.logprobs) for each in heard]


class Numbered(ScriptedEngine):
    """Gives every token a log-probability of its own."""

    async def generate(self, token_ids: Sequence[int], sampling: Sampling, session: str) -> Completion:
        said = await super().generate(token_ids, sampling, session)
        logprobs = [-(len(token_ids) + place) / 1024 for place in range(len(said.token_ids))]
        return Completion(said.token_ids, logprobs, said.stop, 0, sampling.temperature or 1.0)


class Echo(Env):
    """Shows what was done, and is over after `steps` of it."""

    def tasks(self, split: str) -> Sequence[Task]:
        return [Task(name, split, {"steps": 3}) for name in ("red", "green")]

    async def reset(self, task: Task, seed: int) -> Observation:
        self.name, self.left, self.done = task.id, task.data["steps"], list[str]()
        return Observation(f"{self.name}?")

    async def step(self, action: Action) -> Observation:
        self.done.append(action.text)
        self.left -= 1
        return Observation(f"{self.name} {action.text}", done=self.left == 0)

    async def judge(self) -> Outcome:
        return Outcome(success=True, answer=" | ".join(self.done))


def named(function: str, **options: Any) -> Callable[[], Endpoint]:
    config = Endpoint.Config(program=f"{PROGRAMS}:{function}", **options)
    return lambda: Endpoint(config)


def simulate(
    agent: Callable[[], Endpoint],
    engine: Engine,
    env: Callable[[], Env] = Echo,
    tasks: int = 1,
    **limits: Any,
) -> list[Trajectory]:
    """Play the first tasks of an env, one trajectory each; nothing may be left on the loop."""

    async def play() -> list[Trajectory]:
        await engine.start(make("model", "tiny").path(), Resources(threads=1))
        pool = InProcessPool(env, size=8)
        hooks = Hooks(installed=False)
        simulator = Simulator(pool, agent, engine, SimulatorConfig(**limits), hooks, lambda warning: None)
        groups = await simulator.play(list(islice(env().tasks("train"), tasks)), 1, seed=3)
        await pool.close()
        await engine.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left
        return [trajectory for group in groups for trajectory in group.trajectories]

    return asyncio.run(play())


def texts(trajectory: Trajectory) -> list[str]:
    return [ByteTokenizer().decode(segment.token_ids) for segment in trajectory.segments]


# What is trained is what was sampled


def test_a_dialogue_is_one_segment_whose_spans_are_what_the_engine_sampled_streamed_or_not() -> None:
    engine = Numbered(["  eins  zwei ", "zwei", "drei \U0001f40d"])
    heard = listening(engine)
    (trajectory,) = simulate(named("dialogue"), engine)
    assert trajectory.error is None
    assert [turn.action.text for turn in trajectory.turns] == ["  eins  zwei ", "zwei", "drei \U0001f40d"]
    assert recorded(trajectory.segments) == as_sampled(heard)
    assert [span.turn for span in trajectory.spans] == [0, 1, 2]
    (text,) = texts(trajectory)
    assert text.startswith(
        "<|system|>\nPlay.<|end|>\n<|user|>\nred?<|end|>\n<|assistant|>\n  eins  zwei <|end|>\n"
    )
    assert text.count("<|assistant|>") == 3


@pytest.mark.parametrize("program", ["dialogue", "forgetful", "manager", "search"])
def test_with_a_real_engine_every_span_is_bit_for_bit_what_it_sampled(program: str) -> None:
    engine = make("engine", "torch")
    heard = listening(engine)
    env = lambda: make("env", "deepsearch")  # noqa: E731
    agent = named(program, tool_format="tags")
    played = simulate(agent, engine, env, tasks=4, max_new_tokens=24, max_turns=4)
    assert [trajectory.error for trajectory in played] == [None] * 4
    for trajectory in played:
        own = [each for each in heard if trajectory.task.id == each.session.rpartition(" ")[2]]
        assert recorded(trajectory.segments) == as_sampled(own)
        assert trajectory.sampled > 0
    assert len(heard) == sum(len(trajectory.spans) for trajectory in played)


def test_a_rewritten_history_begins_a_segment_and_what_was_sampled_before_stays() -> None:
    engine = Numbered(["one", "two", "three"])
    heard = listening(engine)
    (trajectory,) = simulate(named("forgetful"), engine)
    assert [len(segment.spans) for segment in trajectory.segments] == [2, 1]
    assert recorded(trajectory.segments) == as_sampled(heard)
    assert texts(trajectory)[1].startswith("<|user|>\nred one<|end|>\n<|assistant|>\ntwo<|end|>\n<|user|>\n")


def test_dialogues_side_by_side_and_going_back_keep_the_tokens_that_stand_there() -> None:
    # Sampled in pieces that no tokenizer would make of the text.
    engine = Numbered(lambda context: f" {len(context)} ")
    heard = listening(engine)
    (trajectory,) = simulate(named("manager"), engine, max_turns=1)
    assert recorded(trajectory.segments) == as_sampled(heard)
    first, second, third, fourth, back = (each.given for each in heard)
    tokens = [each.given + each.completion.token_ids for each in heard]
    assert third[: len(tokens[0])] == tokens[0]
    assert fourth[: len(tokens[1])] == tokens[1]
    assert back == third
    assert first != second
    # Each of the five goes on from elsewhere than where the one before has ended.
    assert len(trajectory.segments) == 5


def test_calls_of_tools_are_read_from_the_text_and_recognised_when_they_come_back() -> None:
    says = [
        'Hm. <tool_call>\n{"name": "search", "arguments": {"query": "Ada"}}\n</tool_call>',
        "<answer>Dan</answer>",
    ]
    engine = Numbered(says)
    heard = listening(engine)
    (trajectory,) = simulate(named("search"), engine, max_turns=2)
    assert [turn.action.text for turn in trajectory.turns] == ["<search>Ada</search>", "<answer>Dan</answer>"]
    assert recorded(trajectory.segments) == as_sampled(heard)
    (text,) = texts(trajectory)
    assert '"name": "search", "description": "Look something up."' in text.partition("<|user|>")[0]
    assert (
        f"{says[0]}<|end|>\n<|user|>\n<tool_response>\nred <search>Ada</search>\n</tool_response><|end|>"
        in text
    )


class Tooled(ByteTokenizer):
    """Has a chat template that shows tools, calls and results in its own way."""

    def apply_chat_template(self, conversation: list[dict[str, Any]], **options: Any) -> Any:
        tools = "".join(f"[{tool['function']['name']}]" for tool in options.pop("tools", ()))
        lines = [{**each, "content": each["content"] + _queries(each)} for each in conversation]
        return tools + super().apply_chat_template(lines, **options)


def _queries(message: dict[str, Any]) -> str:
    return "".join(f"!{call['function']['arguments']['query']}" for call in message.get("tool_calls", ()))


def test_a_chat_template_that_shows_tools_is_left_to_do_so() -> None:
    call = '<tool_call>{"name": "search", "arguments": {"query": "Ada"}}</tool_call>'
    engine = Numbered([call, "<answer>Dan</answer>"], Tooled())
    (trajectory,) = simulate(named("search"), engine, max_turns=2)
    (text,) = texts(trajectory)
    assert text.startswith("[search]<|user|>\nred?<|end|>")
    assert f"{call}<|end|>\n<|tool|>\nred <search>Ada</search><|end|>" in text


def test_calls_and_log_probabilities_are_streamed_too() -> None:
    call = '<tool_call>{"name": "search", "arguments": {"query": "Ada"}}</tool_call>'
    (trajectory,) = simulate(named("streamed_search"), Numbered([f"Hm, so. {call}{call}"]), max_turns=1)
    said = json.loads(trajectory.turns[0].action.text)
    assert said["text"] == "Hm, so."
    assert said["calls"] == [
        ["call00001", "search", '{"query": "Ada"}'],
        ["call00002", "search", '{"query": "Ada"}'],
    ]
    assert said["tokens"] == trajectory.sampled
    assert said["ends"] == ["tool_calls"]


class Shouted(ToolFormat):
    """Calls a tool in capitals."""

    native = False

    def describe(self, tools: Sequence[Any]) -> str:
        return "Shout!"

    def write(self, call: Call) -> str:
        return call.name.upper()

    def read(self, text: str, tools: Sequence[Any]) -> tuple[str, list[Call]]:
        found = [tool.function.name for tool in tools if tool.function.name.upper() in text]
        return ("", [Call(name, '{"query": "?"}') for name in found]) if found else (text, [])


def test_a_format_of_ones_own_can_be_named() -> None:
    engine = Numbered(["SEARCH", "<answer>Dan</answer>"])
    agent = named("search", tool_format=f"{__file__}:Shouted")
    (trajectory,) = simulate(agent, engine, max_turns=2)
    assert [turn.action.text for turn in trajectory.turns] == ["<search>?</search>", "<answer>Dan</answer>"]
    assert texts(trajectory)[0].startswith("<|system|>\nShout!<|end|>\n<|user|>\nred?")


def test_what_is_not_quite_a_call_stays_text() -> None:
    for nonsense in ('<tool_call>{"name": "fly", "arguments": {}}</tool_call>', "<tool_call>{</tool_call>"):
        (trajectory,) = simulate(named("search"), Numbered([nonsense]), max_turns=1)
        assert trajectory.turns[0].action.text == f"{nonsense}</answer>"


def test_tags_call_tools_of_one_parameter_and_end_the_turn() -> None:
    engine = Numbered(["<think>a</think><search> Ada </search> and on", "<answer>Dan</answer> and on"])
    (trajectory,) = simulate(named("search", tool_format="tags"), engine, max_turns=2)
    assert [turn.action.text for turn in trajectory.turns] == ["<search>Ada</search>", "<answer>Dan</answer>"]
    (text,) = texts(trajectory)
    assert "<search>query</search>: Look something up." in text
    assert "<search> Ada </search><|end|>\n<|user|>\nred <search>Ada</search><|end|>" in text


def test_episodes_side_by_side_do_not_mix() -> None:
    engine = Numbered(lambda context: "red!" if "red" in context else "green!")
    for program in ("dialogue", "reply"):
        played = simulate(named(program), engine, tasks=2)
        assert [trajectory.outcome and trajectory.outcome.answer for trajectory in played] == [
            "red! | red! | red!",
            "green! | green! | green!",
        ]
        for trajectory, other in zip(played, ("green", "red"), strict=True):
            assert other not in "".join(texts(trajectory))


# What may be asked


def act(function: str, engine: Engine | None = None, temperature: float = 1.0, **options: Any) -> Trajectory:
    """Play one turn."""
    (trajectory,) = simulate(
        named(function, **options), engine or Numbered(["a b", "c"]), max_turns=1, temperature=temperature
    )
    return trajectory


@pytest.mark.parametrize(
    ("function", "cause"),
    [
        ("several", r"n=3 cannot be honoured.*--set agent\.ignore=\[n\]"),
        ("constrained", "response_format=.*cannot be honoured"),
        ("forced", "tool_choice='required' cannot be honoured"),
        ("cold", r"temperature=0\.25 is not the run's, 1.*agent\.own_temperature=true"),
        ("narrow", r"top_p=0\.5 cannot be honoured"),
        ("pictured", r"messages\.0\.content"),
        ("its_own_last_word", "the last message is the assistant's"),
        ("unknown", "guided_regex='x' cannot be honoured"),
    ],
)
def test_who_acts_after_a_request_that_was_refused_has_failed(function: str, cause: str) -> None:
    trajectory = act(function)
    assert trajectory.stop == "error"
    assert trajectory.error is not None
    assert trajectory.error.startswith(
        "agent.act at turn 0 raised ProgramFailed: the program acted after a request"
    )
    assert re.search(cause, trajectory.error), trajectory.error
    assert trajectory.sampled == 0


def test_who_asks_again_without_it_has_not() -> None:
    trajectory = act("falls_back")
    assert trajectory.error is None
    assert trajectory.turns[0].action.text == "a b"


def test_fields_can_be_passed_over() -> None:
    for function, field in (
        ("several", "n"),
        ("cold", "temperature"),
        ("forced", "tool_choice"),
        ("narrow", "top_p"),
    ):
        trajectory = act(function, ignore=(field,))
        assert trajectory.error is None
        assert [span.temperature for span in trajectory.spans] == [1.0]


def test_a_temperature_of_its_own_is_sampled_with_and_recorded() -> None:
    engine = Numbered(["a"])
    trajectory = act("cold", engine, own_temperature=True)
    assert engine.requests[0].sampling.temperature == 0.25
    assert [span.temperature for span in trajectory.spans] == [0.25]
    assert "temperature=0 samples nothing" in (act("greedy", own_temperature=True).error or "")
    assert act("greedy", temperature=0.0).error is None


def test_log_probabilities_are_the_engines_and_tokens_are_bounded() -> None:
    trajectory = act("measured", Numbered(["abcdefgh"]))
    answer = json.loads(trajectory.turns[0].action.text)
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"] == "abcd"
    assert [each["logprob"] for each in choice["logprobs"]["content"]] == trajectory.spans[0].logprobs
    assert [each["token"] for each in choice["logprobs"]["content"]] == list("abcd")
    assert answer["usage"]["completion_tokens"] == 4


def test_contents_in_parts_and_developers_are_understood() -> None:
    (text,) = texts(act("parts"))
    assert text.startswith("<|system|>\nBe.<|end|>\n<|user|>\nab<|end|>\n")


def test_models_are_listed() -> None:
    assert act("lists_models").turns[0].action.text == "agentrl"


# Who drives


def test_a_function_that_returns_is_called_again_with_what_comes_next() -> None:
    (trajectory,) = simulate(named("reply"), Numbered(lambda context: context[-30:].count("?") * "!"))
    assert [turn.observation.text for turn in trajectory.turns] == ["red?", "red !", "red "]
    assert len(trajectory.segments) == 3


def test_steps_at_once_are_played_one_after_the_other() -> None:
    (trajectory,) = simulate(named("steps_together"), Numbered(["x"]))
    assert [turn.action.text for turn in trajectory.turns] == ["one", "two", "red one / red two"]


def test_async_code_with_a_client_that_blocks_does_not_stop_the_run() -> None:
    played = simulate(named("plain_client_in_async_code"), Numbered(lambda context: "x"), tasks=2)
    assert [trajectory.error for trajectory in played] == [None, None]


def test_a_full_context_and_a_spent_budget_end_the_trajectory_as_for_any_agent() -> None:
    script = Numbered(lambda context: "word " * 5, context_length=100)
    (trajectory,) = simulate(named("dialogue"), script)
    assert (trajectory.stop, len(trajectory.turns)) == ("max_tokens", 2)
    (trajectory,) = simulate(named("dialogue"), Numbered(lambda context: "word " * 5), max_tokens=30)
    assert (trajectory.stop, trajectory.sampled) == ("max_tokens", 30)


def test_programs_keep_the_rules_of_agents() -> None:
    check_agent(named("dialogue"), ["go north"])
    check_agent(named("reply"), ["go north"])


# Options


def test_options_that_name_no_program_are_refused_before_anything_starts() -> None:
    def refused(**options: Any) -> str:
        with pytest.raises(UsageError) as error:
            make("agent", "endpoint", options)
        return str(error.value)

    assert "agent.program=module:function or agent.command" in refused()
    assert "agent.program=module:function or agent.command" in refused(program="a:b", command="ls")
    assert "names no function" in refused(program="agentrl_endpoint")
    assert "cannot be imported: ModuleNotFoundError" in refused(program="no_such_module:play")
    assert "has no function 'nothing'" in refused(program=f"{PROGRAMS}:nothing")
    assert "cannot be found" in refused(command="no-such-command --fast")
    assert "is not a ToolFormat" in refused(program=f"{PROGRAMS}:reply", tool_format="agentrl:Sampling")
