"""The conformance kit lets a good env pass and names what is wrong with a bad one."""

import asyncio
import contextlib
import functools
import importlib
import os
import random
import threading
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

from agentrl import Action, Env, Expert, Observation, Outcome, Task, UsageError
from agentrl.testing import RuleBroken, RulesBroken, Verdict, check_env, env_traces
from agentrl.testing.env_player import EnvUnderTest

WORDS = {"train": ("apple", "pear", "plum"), "dev": ("fig", "quince")}


class Parrot(Env):
    """Shows a word, twice; the answer is to repeat it twice."""

    def tasks(self, split: str) -> Sequence[Task]:
        if split not in WORDS:
            raise UsageError(f"no split {split!r}; there are: {', '.join(WORDS)}")
        return [Task(f"{split}-{word}", split, {"word": word, "parts": [1, 2]}) for word in WORDS[split]]

    async def reset(self, task: Task, seed: int) -> Observation:
        self.word = task.data["word"]
        self.said: list[str] = []
        self.mood = random.Random(seed).choice(["good", "bad"])
        return Observation(f"In a {self.mood} mood I say {self.word}.", state_key=self.word)

    async def step(self, action: Action) -> Observation:
        self.said.append(action.text)
        return Observation(f"You said {action.text[:20]!r}.", done=len(self.said) == 2)

    async def judge(self) -> Outcome:
        return Outcome(self.said == [self.word] * 2, self.said[-1] if self.said else None, (self.word,))

    def demonstrate(self, task: Task) -> Sequence[str] | None:
        return [task.data["word"]] * 2


class WithoutExpert(Parrot):
    def demonstrate(self, task: Task) -> None:
        return None


class Looks(Parrot):
    """Its expert reads the word off the first observation, and remembers it."""

    def demonstrate(self, task: Task) -> Expert:
        heard: list[str] = []

        def expert(observation: Observation) -> str:
            heard.append(observation.text)
            return heard[0].rstrip(".").split()[-1]

        return expert


class RemembersTheLastExpert(Looks):
    heard: ClassVar[list[str]] = []

    def demonstrate(self, task: Task) -> Expert:
        def expert(observation: Observation) -> str:
            self.heard.append(observation.text)
            return self.heard[0].rstrip(".").split()[-1]

        return expert


class IsAtALoss(Looks):
    def demonstrate(self, task: Task) -> Expert:
        return lambda observation: observation.text.split(" I say ")[1].rstrip(".")


class SaysNothing(Looks):
    def demonstrate(self, task: Task) -> Expert:
        return lambda observation: cast(str, None)


class NeverEnds(Looks):
    async def step(self, action: Action) -> Observation:
        return Observation("Go on.")


class LabelsWithNumbers(Parrot):
    def tasks(self, split: str) -> Sequence[Task]:
        labels = cast("dict[str, str]", {"size": 3})
        return [Task(task.id, split, task.data, labels=labels) for task in super().tasks(split)]


class NeedsAnOption(Parrot):
    def __init__(self, config: Any = None) -> None:
        raise ValueError("give me a corpus")


class EmptySplit(Parrot):
    def tasks(self, split: str) -> Sequence[Task]:
        return [] if split == "dev" else super().tasks(split)


class TwoOfOneName(Parrot):
    def tasks(self, split: str) -> Sequence[Task]:
        return [Task(split, task.split, task.data) for task in super().tasks(split)]


class ForgetsTheSplit(Parrot):
    def tasks(self, split: str) -> Sequence[Task]:
        return [Task(task.id, "train", task.data) for task in super().tasks(split)]


class SetsAsData(Parrot):
    def tasks(self, split: str) -> Sequence[Task]:
        return [Task(task.id, split, {**task.data, "tags": {"a"}}) for task in super().tasks(split)]


class TuplesAsData(Parrot):
    def tasks(self, split: str) -> Sequence[Task]:
        return [Task(task.id, split, {**task.data, "tags": ("a", "b")}) for task in super().tasks(split)]


class ShufflesTasks(Parrot):
    def tasks(self, split: str) -> Sequence[Task]:
        tasks = [Task(f"{split} {number}", split, {"word": str(number)}) for number in range(64)]
        return random.sample(tasks, len(tasks))


class SharesTasks(Parrot):
    def tasks(self, split: str) -> Sequence[Task]:
        words = WORDS["train"] if split in WORDS else super().tasks(split)
        return [Task(f"{split}-{word}", split, {"word": word}) for word in words]


class TakesAnySplit(Parrot):
    def tasks(self, split: str) -> Sequence[Task]:
        return super().tasks(split if split in WORDS else "train")


class RemembersTheLastEpisode(Parrot):
    said: list[str]

    async def reset(self, task: Task, seed: int) -> Observation:
        before = len(getattr(self, "said", []))
        shown = await super().reset(task, seed)
        return Observation(f"{shown.text} {before}")


class IgnoresItsSeed(Parrot):
    async def reset(self, task: Task, seed: int) -> Observation:
        await super().reset(task, seed)
        return Observation(f"{self.word} {random.random()}")


class SharesState(Parrot):
    words: ClassVar[dict[str, str]] = {}

    async def reset(self, task: Task, seed: int) -> Observation:
        shown = await super().reset(task, seed)
        self.words["now"] = self.word
        return shown

    async def judge(self) -> Outcome:
        return Outcome(self.said == [self.words["now"]] * 2)


class WritesInTheTask(Parrot):
    async def reset(self, task: Task, seed: int) -> Observation:
        task.data["parts"].append(3)
        return await super().reset(task, seed)


class DemonstratesTooLittle(Parrot):
    def demonstrate(self, task: Task) -> Sequence[str]:
        return [task.data["word"]]


class DemonstratesTooMuch(Parrot):
    def demonstrate(self, task: Task) -> Sequence[str]:
        return [task.data["word"]] * 3


class DemonstratesWrongly(Parrot):
    def demonstrate(self, task: Task) -> Sequence[str]:
        return ["apple", "apple"]


class DemonstratesHalf(Parrot):
    async def judge(self) -> Outcome:
        return Outcome((await super().judge()).success, passed=("said",), failed=("meant",))


class DemonstratesNothing(Parrot):
    def demonstrate(self, task: Task) -> Sequence[str]:
        return []


class PaysForWaiting(Parrot):
    async def judge(self) -> Outcome:
        return Outcome(self.said in ([self.word] * 2, ["", ""]))


class PaysForShowingUp(Parrot):
    async def judge(self) -> Outcome:
        return Outcome(not self.said or self.said == [self.word] * 2)


class PaysForWaitingForPears(Parrot):
    async def judge(self) -> Outcome:
        waited = self.word == "pear" and self.said == ["", ""]
        return Outcome(waited or self.said == [self.word] * 2)


class ChokesOnNonsense(Parrot):
    async def step(self, action: Action) -> Observation:
        action.text.encode("ascii")
        return await super().step(action)


class ChokesOnTruncation(Parrot):
    async def judge(self) -> Outcome:
        return Outcome(self.said[1] == self.word)


class ReturnsText(Parrot):
    async def step(self, action: Action) -> Observation:
        return cast(Observation, "just text")


class JudgesWithANumber(Parrot):
    async def judge(self) -> Outcome:
        return Outcome(success=cast(bool, 0.7))


class Hangs(Parrot):
    async def step(self, action: Action) -> Observation:
        await asyncio.sleep(600)
        return Observation("too late")


class WillNotBeCancelled(Parrot):
    async def step(self, action: Action) -> Observation:
        for _ in range(20):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        return await super().step(action)


class DiesWhenCancelled(Parrot):
    async def reset(self, task: Task, seed: int) -> Observation:
        try:
            await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            raise RuntimeError("interrupted") from None
        return await super().reset(task, seed)


class KeepsItsLock(Parrot):
    """An episode that is cancelled never gives the lock of all instances back."""

    taken: ClassVar[list[int]] = []

    async def step(self, action: Action) -> Observation:
        held = bool(self.taken)
        self.taken.append(1)
        for _ in range(5):
            await asyncio.sleep(0)
        self.taken.pop()
        return Observation("Wait.") if held else await super().step(action)


class LeavesATask(Parrot):
    """Watches the clock, also when nobody plays any more."""

    async def reset(self, task: Task, seed: int) -> Observation:
        self.watching = asyncio.create_task(asyncio.sleep(600))
        return await super().reset(task, seed)


class LeavesAProcess(Parrot):
    """Ends the program that it asks, unless it is cancelled while it waits for it."""

    async def step(self, action: Action) -> Observation:
        program = await asyncio.create_subprocess_exec("sleep", "60", stdin=DEVNULL)
        started.append(program)
        await asyncio.sleep(0.5)
        program.kill()
        await program.wait()
        return await super().step(action)


started: list[Process] = []


class KeepsEverything(Parrot):
    kept: ClassVar[list[str]] = []

    async def reset(self, task: Task, seed: int) -> Observation:
        self.kept.append(f"{seed}" * 4000)
        return await super().reset(task, seed)


class KeepsALittle(Parrot):
    kept: ClassVar[dict[int, str]] = {}

    async def reset(self, task: Task, seed: int) -> Observation:
        self.kept[seed] = f"{seed:800}"
        return await super().reset(task, seed)


class KeepsALotOnce(Parrot):
    """Fills a buffer late."""

    kept: ClassVar[list[str]] = []

    async def reset(self, task: Task, seed: int) -> Observation:
        if seed == 35:
            self.kept.append(f"{seed:200000}")
        return await super().reset(task, seed)


class LeavesFilesOpen(Parrot):
    kept: ClassVar[list[int]] = []

    async def reset(self, task: Task, seed: int) -> Observation:
        self.kept.append(os.open(os.devnull, os.O_RDONLY))
        return await super().reset(task, seed)


class LeavesThreads(Parrot):
    over = threading.Event()

    async def reset(self, task: Task, seed: int) -> Observation:
        threading.Thread(target=self.over.wait, daemon=True).start()
        return await super().reset(task, seed)


class ClosesOnce(Parrot):
    closed = False

    async def close(self) -> None:
        if self.closed:
            raise RuntimeError("already closed")
        self.closed = True


@pytest.mark.parametrize("env", [Parrot, WithoutExpert, Looks, lambda: Parrot(Parrot.Config())])
def test_a_good_env_passes(env: type[Env]) -> None:
    check_env(env)


@pytest.mark.parametrize(
    ("env", "rule", "remedy"),
    [
        (
            NeedsAnOption,
            r"raises nothing: making the env raised ValueError: give me a corpus",
            "without options",
        ),
        (EmptySplit, "has tasks: split 'dev' is empty", "`splits`"),
        (TwoOfOneName, "names its tasks: two tasks of 'train' are called 'train'", "unique"),
        (ForgetsTheSplit, "names the split: task 'dev-fig' of split 'dev' says split='train'", "pass split"),
        (SetsAsData, "has JSON-safe tasks: .* cannot be written as JSON", "use only text"),
        (TuplesAsData, "has JSON-safe tasks: .* changes on its way through JSON", "use only text"),
        (ShufflesTasks, "has tasks in a fixed order: split 'train' was different", "fixed seed"),
        (SharesTasks, "keeps its splits apart: task 'train-apple' .* is task 'dev-apple'", "memory"),
        (TakesAnySplit, "refuses unknown splits", "raise agentrl.UsageError"),
        (RemembersTheLastEpisode, "repeats itself: .* played again", "let reset set everything anew"),
        (IgnoresItsSeed, "repeats itself", "draw all randomness from its seed"),
        (SharesState, "keeps instances apart", "never in the class"),
        (WritesInTheTask, "leaves its tasks alone: playing task 'train-apple'", "copy what you change"),
        (DemonstratesTooLittle, "not over after all 1 demonstrated turns", "up to the end"),
        (DemonstratesTooMuch, "over after 2 of 3 demonstrated turns", "up to the end"),
        (DemonstratesWrongly, "'train-pear' is judged a failure", "must earn full marks"),
        (DemonstratesHalf, "'train-apple' has failed checks ..Outcome.success=True", "must earn full marks"),
        (DemonstratesNothing, r"demonstrate\('train-apple'\) returned '\[\]'", "at least one text"),
        (RemembersTheLastExpert, "'train-pear' is judged a failure", "must earn full marks"),
        (IsAtALoss, "the expert of task 'train-apple' raised IndexError", "whatever the env shows it"),
        (SaysNothing, "the expert of task 'train-apple' answered 'None', which is no text", "with a text"),
        (NeverEnds, "the expert of task 'train-apple' has not ended it after 500 turns", "end the episode"),
        (LabelsWithNumbers, "the labels of task 'train-apple' are .*3", "map texts to texts"),
        (PaysForWaiting, "gives nothing for nothing: .* solved after 16 times ''", "look for evidence"),
        (PaysForWaitingForPears, "'train-pear' counts as solved after 16 times ''", "look for evidence"),
        (PaysForShowingUp, "gives nothing for nothing: .* after nothing at all", "look for evidence"),
        (ChokesOnNonsense, "raises nothing: step.* raised UnicodeEncodeError", "answer nonsense with an obs"),
        (
            ChokesOnTruncation,
            "raises nothing: judge after 0 steps raised IndexError",
            "cut off after any turn",
        ),
        (ReturnsText, r"returned a str \('just text'\), not an Observation", "see the types"),
        (
            JudgesWithANumber,
            r"returned a float \(0.7\) as Outcome.success, which must be a bool",
            "see the types",
        ),
        (Hangs, "answers in time: step.* took longer than 0.05 s", "`seconds`"),
        (ClosesOnce, "raises nothing: close raised RuntimeError", "and twice"),
    ],
)
def test_a_bad_env_is_told_what_is_wrong_and_what_to_do(env: type[Env], rule: str, remedy: str) -> None:
    with pytest.raises(RulesBroken, match=f"{rule}.*; .*{remedy}"):
        check_env(env, seconds=0.05 if env is Hangs else 30)


@pytest.mark.parametrize(
    ("env", "fault", "remedy"),
    [
        (WillNotBeCancelled, "step was cancelled, but went on to its end", "let CancelledError through"),
        (
            DiesWhenCancelled,
            "reset was cancelled, but raised RuntimeError: interrupted",
            "let CancelledError through",
        ),
        (KeepsItsLock, "went another way after another env was cancelled", "undo the rest in `finally`"),
    ],
)
def test_an_env_has_to_let_itself_be_cancelled(env: type[Env], fault: str, remedy: str) -> None:
    with pytest.raises(RulesBroken, match=f"lets itself be cancelled: .*{fault}; .*{remedy}"):
        check_env(env)


def test_what_goes_on_after_an_env_was_cancelled_and_closed_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(env_traces, "ENDINGS", 20)
    left = "leaves nothing behind: after a cancelled reset, and close, 1 of its asyncio tasks went on; cancel"
    with pytest.raises(RulesBroken, match=left):
        check_env(LeavesATask)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="only Linux tells which processes there are")
def test_a_process_that_goes_on_after_a_step_was_cancelled_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(env_traces, "ENDINGS", 20)
    subject = EnvUnderTest(LeavesAProcess, ("train",), count=1, seconds=30)
    left = "after a cancelled step, and close, 1 of its processes went on; .* kill processes"
    try:
        with pytest.raises(RuleBroken, match=left):
            asyncio.run(env_traces.lets_itself_be_cancelled(subject))
    finally:
        for program in started:
            with contextlib.suppress(ProcessLookupError):
                program.kill()


ORDERED_BY_HASHES = """
import agentrl

class Basket(agentrl.Env):
    def tasks(self, split):
        if split not in ("train", "dev"):
            raise agentrl.UsageError("no such split; there are: train, dev")
        return [agentrl.Task(f"{split}-{fruit}", split) for fruit in FRUITS]

    async def reset(self, task, seed):
        return agentrl.Observation("Choose one of " + ", ".join(SHOWN))

    async def step(self, action):
        return agentrl.Observation("", done=True)

    async def judge(self):
        return agentrl.Outcome(False)
"""
FRUITS = '{"apple", "fig", "kiwi", "lemon", "lime", "mango", "melon", "peach", "pear", "plum"}'


@pytest.mark.parametrize(
    ("fruits", "shown", "fault"),
    [
        (FRUITS, FRUITS, "task 'train-.*' of 'train' was another one in another process"),
        (f"sorted({FRUITS})", FRUITS, "the episode of task 'train-apple' was another one in another process"),
    ],
)
def test_an_env_that_is_another_one_in_another_process_is_told_so(
    fruits: str, shown: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"basket_{len(fruits)}"
    (tmp_path / f"{name}.py").write_text(f"{ORDERED_BY_HASHES}\nFRUITS, SHOWN = {fruits}, {shown}\n")
    monkeypatch.syspath_prepend(tmp_path)
    basket = importlib.import_module(name).Basket
    with pytest.raises(RulesBroken, match=f"repeats itself elsewhere: {fault} .*; sort what comes from sets"):
        check_env(basket)


def test_an_env_that_is_the_same_everywhere_passes_with_its_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordered = f"sorted({FRUITS})"
    (tmp_path / "tidy.py").write_text(f"{ORDERED_BY_HASHES}\nFRUITS, SHOWN = {ordered}, {ordered}\n")
    monkeypatch.syspath_prepend(tmp_path)
    tidy = importlib.import_module("tidy").Basket
    verdicts: list[Verdict] = []
    check_env(functools.partial(tidy, tidy.Config()), report=verdicts.append)
    assert Verdict("repeats itself elsewhere") in verdicts


@pytest.mark.parametrize(
    ("env", "fault"),
    [
        (KeepsEverything, r"[48]\.\d kB of memory an episode"),
        (KeepsALittle, r"0\.[89] kB of memory an episode"),
        (LeavesFilesOpen, "20 open files"),
        (LeavesThreads, "20 threads"),
    ],
)
def test_what_many_episodes_leave_behind_is_noticed(env: type[Env], fault: str) -> None:
    try:
        with pytest.raises(
            RulesBroken, match=f"leaves nothing behind: {fault} were added .*; let reset give"
        ):
            check_env(env, episodes=40)
    finally:
        while LeavesFilesOpen.kept:
            os.close(LeavesFilesOpen.kept.pop())
        if env is LeavesThreads:
            LeavesThreads.over.set()


@pytest.mark.parametrize("env", [Parrot, KeepsALotOnce])
def test_a_good_env_leaves_nothing_behind(env: type[Env]) -> None:
    check_env(env, episodes=40)


def test_each_rule_is_reported_as_it_was_tried() -> None:
    verdicts: list[Verdict] = []
    with pytest.raises(RulesBroken):
        check_env(ClosesOnce, report=verdicts.append)
    told = {verdict.rule: verdict for verdict in verdicts}
    assert told["repeats itself"] == Verdict("repeats itself")
    assert told["leaves nothing behind"].skipped == "it takes a while; episodes=200 plays so many"
    broken = told["closes in peace"].broken
    assert broken is not None
    assert broken.found == "close raised RuntimeError: already closed"
    assert broken.remedy == "let close work before, during and after an episode, and twice"


def test_all_faults_are_told_at_once() -> None:
    class Bad(TakesAnySplit, DemonstratesTooLittle, ClosesOnce):
        pass

    with pytest.raises(RulesBroken, match=r"Bad breaks 3 of the rules") as broken:
        check_env(Bad)
    assert [rule.rule for rule in broken.value.broken] == [
        "refuses unknown splits",
        "solves what it demonstrates",
        "raises nothing",
    ]


def test_every_env_that_is_made_is_closed() -> None:
    made: list[str] = []

    class Counted(Parrot):
        def __init__(self, config: Any = None) -> None:
            super().__init__(config)
            made.append("open")

        async def close(self) -> None:
            if not hasattr(self, "closed"):
                made.pop()
            self.closed = True

    check_env(Counted)
    assert made == []


def test_huge_lazy_splits_are_not_read_to_their_end() -> None:
    class Lazy(Sequence[Task]):
        def __len__(self) -> int:
            return 10**12

        def __getitem__(self, index: Any) -> Any:
            assert index < 2000
            return Task(f"train {index}", "train", {"word": f"w{index}"})

    class Endless(Parrot):
        def tasks(self, split: str) -> Sequence[Task]:
            return Lazy() if split == "train" else super().tasks(split)

    check_env(Endless)
