"""`agentrl check` tells which rules a plugin keeps, which it breaks and what to do about it."""

from pathlib import Path
from typing import Any

import pytest

from agentrl.cli import main

GOOD = '''
import asyncio
import random
from pydantic import Field
from agentrl import *
from agentrl.types import Span

class Word(Env):
    """Say the word."""
    class Config(PluginConfig):
        polite: bool = False
    def tasks(self, split):
        words = {"train": ["apple", "pear"], "dev": ["fig"]}
        if split not in words: raise UsageError(f"no split {split!r}; there are: train, dev")
        return [Task(f"{split}-{word}", split, {"word": word}) for word in words[split]]
    async def reset(self, task, seed):
        self.word, self.said = task.data["word"], None
        return Observation(f"Say {self.word}.")
    async def step(self, action):
        self.said = action.text
        return Observation("Thank you." if self.config.polite else "", done=True)
    async def judge(self):
        return Outcome(self.said == self.word)
    def demonstrate(self, task):
        return [task.data["word"]]

class Verdict(Reward):
    """What the env says."""
    class Config(PluginConfig):
        scale: float = 1.0
    async def score(self, trajectory):
        return self.config.scale * trajectory.outcome.success

class Talk(Agent):
    """Passes on what is said."""
    async def act(self, observation, conversation):
        conversation.say(user(observation.text))
        return Action(await conversation.ask())

class Better(Algorithm):
    """Rewards above the group's mean."""
    def credit(self, batch):
        return [[Credit([t.reward - self.baseline(group)] * t.sampled) for t in group.trajectories]
                for group in batch.groups]
    def baseline(self, group):
        return sum(group.rewards) / len(group.rewards)
    def loss(self, tokens):
        return -tokens.advantages * tokens.logprobs
'''
# By kind: the class that is planted upon, and each fault with the rule that finds it, and the remedy.
FAULTS = [
    (
        "env",
        "Word",
        "    seen = []\n"
        "    async def reset(self, task, seed):\n"
        "        first = await super().reset(task, seed)\n"
        "        self.seen.append(task.id)\n"
        "        return Observation(f'{first.text} {len(self.seen)}')\n",
        "FAILED   repeats itself: task 'train-apple' went another way when it was played again",
        "let reset set everything anew",
    ),
    (
        "env",
        "Word",
        "    async def reset(self, task, seed):\n"
        "        first = await super().reset(task, seed)\n"
        "        return Observation(f'{first.text} {random.random()}')\n",
        "FAILED   repeats itself: task 'train-apple' went another way",
        "draw all randomness from its seed",
    ),
    (
        "env",
        "Word",
        "    async def judge(self):\n        return Outcome(self.said in (None, self.word))\n",
        "FAILED   gives nothing for nothing: task 'train-apple' counts as solved after nothing at all",
        "let judge look for evidence that the task was done",
    ),
    (
        "env",
        "Word",
        "    async def step(self, action):\n"
        "        if not action.text: raise ValueError('say something')\n"
        "        return await super().step(action)\n",
        "FAILED   repeats itself: step('') raised ValueError: say something",
        "answer nonsense with an observation that says what is wrong with it",
    ),
    (
        "env",
        "Word",
        "    def tasks(self, split):\n"
        "        return [Task(f'{t.id}', split, {'word': t.data['word']}) for t in super().tasks('train')]\n",
        "FAILED   keeps its splits apart: task 'train-apple' of 'train' is task 'train-apple' of 'dev'",
        "draw each split from entities of its own",
    ),
    (
        "env",
        "Word",
        "    async def step(self, action):\n"
        "        try:\n"
        "            await asyncio.sleep(0.001)\n"
        "        except asyncio.CancelledError:\n"
        "            pass\n"
        "        return await super().step(action)\n",
        "FAILED   lets itself be cancelled: step was cancelled, but went on to its end",
        "let CancelledError through",
    ),
    (
        "reward",
        "Verdict",
        "    async def score(self, trajectory):\n"
        "        return float(trajectory.turns[-1].action.text != '')\n",
        "FAILED   scores everything: scoring a trajectory, cut off before its first turn, raised IndexError",
        "score every trajectory that has an outcome, however it ended",
    ),
    (
        "reward",
        "Verdict",
        "    async def score(self, trajectory):\n        return 1 / (1 + len(trajectory.turns))\n",
        "FAILED   pays nothing for nothing: one cut off before its first turn scored 1, a success 0.333333",
        "score doing nothing no higher than success",
    ),
    (
        "reward",
        "Verdict",
        "    async def score(self, trajectory):\n        return -float(trajectory.outcome.success)\n",
        "FAILED   prefers what is right: half of it scored -0, the right answer -1",
        "look for a sign that is turned round",
    ),
    (
        "agent",
        "Talk",
        "    async def act(self, observation, conversation):\n"
        "        action = await super().act(observation, conversation)\n"
        "        segment = conversation.segments[-1]\n"
        "        segment.spans[-1] = Span(0, [0.0] * len(segment.token_ids), 0)\n"
        "        return action\n",
        "FAILED   trains on what was sampled: the spans hold",
        "leave conversation.segments alone",
    ),
    (
        "agent",
        "Talk",
        "    async def act(self, observation, conversation):\n"
        "        action = await super().act(observation, conversation)\n"
        "        return Action(action.text.split('<answer>')[1])\n",
        "FAILED   survives nonsense: act, while the model says '', raised IndexError",
        "turn whatever the model says into an action",
    ),
    (
        "algorithm",
        "Better",
        "    def baseline(self, group):\n        return group.rewards[0]\n",
        "FAILED   is fair: a trajectory's credit changed when the trajectories of each group came in another",
        "compare a trajectory with its whole group",
    ),
    (
        "algorithm",
        "Better",
        "    def credit(self, batch):\n"
        "        return [[Credit([t.reward]) for t in group.trajectories] for group in batch.groups]\n",
        "FAILED   credits every token: credit of three groups of different sizes: 1 numbers for",
        "spread your credit over all sampled tokens",
    ),
    (
        "algorithm",
        "Better",
        "    def loss(self, tokens):\n        return -super().loss(tokens)\n",
        "FAILED   learns which arm pays: after 40 updates",
        "look for a sign",
    ),
]
GROUPS = {
    "env": "agentrl.envs",
    "reward": "agentrl.rewards",
    "agent": "agentrl.agents",
    "algorithm": "agentrl.algorithms",
}
CLASSES = {"env": "Word", "reward": "Verdict", "agent": "Talk", "algorithm": "Better"}


def called(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.fixture
def good(install: Any) -> Path:
    """Install a good plugin of each kind, called `good_KIND`, and an env and a reward called `both`."""
    entry_points = {GROUPS[kind]: {f"good_{kind}": f"goods:{name}"} for kind, name in CLASSES.items()}
    entry_points["agentrl.envs"]["both"] = "goods:Word"
    entry_points["agentrl.rewards"]["both"] = "goods:Verdict"
    folder: Path = install("goods", entry_points, modules={"goods": GOOD})
    return folder


@pytest.mark.parametrize("kind", sorted(CLASSES))
def test_a_good_plugin_passes_rule_by_rule(kind: str, good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called("check", f"good_{kind}") == 0
    first, *rules, last = capsys.readouterr().out.splitlines()
    assert first == f"{kind} good_{kind} of goods 1.0"
    assert all(rule.startswith(("  passed   ", "  skipped  ")) for rule in rules)
    passed = sum(rule.startswith("  passed") for rule in rules)
    assert last.startswith(f"{passed} passed")


def test_what_is_skipped_says_why(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called("check", "good_env") == 0
    out = capsys.readouterr().out
    assert "  skipped  leaves nothing behind: it takes a while; episodes=200 plays so many\n" in out
    assert called("check", "good_env", "--with", "episodes=20") == 0
    assert "  passed   leaves nothing behind\n" in capsys.readouterr().out


@pytest.mark.parametrize(("kind", "parent", "body", "fault", "remedy"), FAULTS)
def test_a_planted_fault_is_named_with_its_remedy(
    kind: str,
    parent: str,
    body: str,
    fault: str,
    remedy: str,
    install: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "learns" in fault:
        pytest.importorskip("torch", reason="the loss needs the extra torch")
    source = f"{GOOD}\nclass Bad({parent}):\n    '''Has a fault.'''\n{body}"
    install("bads", {GROUPS[kind]: {"bad": "bads:Bad"}}, modules={"bads": source})
    assert called("check", "bad") == 1
    lines = capsys.readouterr().out.splitlines()
    found = next(place for place, line in enumerate(lines) if line.strip().startswith(fault))
    assert lines[found + 1].strip().startswith("what to do: ")
    assert remedy in lines[found + 1]
    assert lines[-1].endswith(" failed")


def test_a_fault_that_breaks_many_rules_is_told_once(
    install: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    source = (
        f"{GOOD}\nclass Bad(Word):\n    async def reset(self, task, seed):\n        raise OSError('no')\n"
    )
    install("bads", {"agentrl.envs": {"bad": "bads:Bad"}}, modules={"bads": source})
    assert called("check", "bad") == 1
    out = capsys.readouterr().out
    assert out.count("raised OSError: no") == 1
    assert "  FAILED   keeps instances apart: as above\n" in out


def test_debug_shows_what_the_plugin_raised(install: Any, capsys: pytest.CaptureFixture[str]) -> None:
    source = (
        f"{GOOD}\nclass Bad(Word):\n    async def reset(self, task, seed):\n        raise OSError('no')\n"
    )
    install("bads", {"agentrl.envs": {"bad": "bads:Bad"}}, modules={"bads": source})
    assert called("check", "bad", "--debug") == 1
    assert "raise OSError('no')" in capsys.readouterr().err


def test_options_are_those_of_a_run(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called("check", "good_env", "--set", "env.polite=true") == 0
    assert called("check", "good_reward", "--set", "rewards.good_reward.scale=50") == 1
    assert "got 50, which is not between -1 and 1" in capsys.readouterr().out
    assert (
        called("check", "good_reward", "--set", "rewards.good_reward.scale=5", "--with", "between=[0,5]") == 0
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing_at_all"], "no plugin 'nothing_at_all'"),
        (["both"], "'both' is the name of several plugins; choose one with --kind: env, reward"),
        (["good_env", "--kind", "reward"], "no reward 'good_env'"),
        (["torch", "--kind", "trainer"], "there are no rules for a trainer; there are for: env, agent"),
        (["good_env", "--set", "env.polit=1"], "env 'good_env' has no option 'env.polit'; did you mean"),
        (["good_env", "--set", "steps=1"], "--set is for options of the env 'good_env' here"),
        (["good_env", "--with", "task=1"], "has no option 'task'; did you mean 'tasks'?"),
        (["good_env", "--with", "tasks=many"], "'tasks' must be a whole number, not 'many'"),
    ],
)
def test_wrong_usage_is_told_in_a_sentence(
    arguments: list[str], message: str, good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called("check", *arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1


def test_one_of_two_kinds_is_chosen(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called("check", "both", "--kind", "reward") == 0
    assert capsys.readouterr().out.startswith("reward both of goods 1.0\n")
