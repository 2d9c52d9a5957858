"""`agentrl env play`: what a person sees and types, at a terminal and through a pipe."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "agentrl", "env", "play"]
LOCK = '''
from agentrl import *

class Lock(Env):
    """Opens at the word of the task, after another one."""

    suggests = {"agent.system": "Say the word.", "train_split": "learn"}

    class Config(PluginConfig):
        polite: bool = False
        expert: str = "looks"

    def tasks(self, split):
        if split != "learn":
            raise UsageError(f"no split {split!r}: there is learn")
        return [Task(f"{word}-{n}", split, {"word": word}, labels={"kind": word})
                for n, word in enumerate(["sesame", "please"])]

    async def reset(self, task, seed):
        self.word, self.said = task.data["word"], []
        return Observation(f"Locked, seed {seed}. The word is {self.word!r}.")

    async def step(self, action):
        self.said.append(action.text)
        if action.text == "kick":
            raise KeyError("the door is broken")
        return Observation(f"You said {action.text!r}.", done=action.text == self.word)

    async def judge(self):
        good = self.word in self.said
        print(self.said)
        last = self.said[-1] if self.said else None
        failed = () if good else ("opened",)
        return Outcome(good, last, (), ("knocked",), failed, {"words": len(self.said)}, ("dark", "wet"))

    def demonstrate(self, task):
        if self.config.expert == "script":
            return ["knock", task.data["word"]]
        if self.config.expert == "none":
            return None
        seen = []
        def expert(observation):
            if "rubbish" in observation.text:
                raise LookupError("what now?")
            seen.append(observation.text)
            return f"{task.data['word']} ({len(seen)} seen)"
        return expert

    def explain(self, task):
        return f"the word {task.data['word']!r} is said"

    async def close(self):
        print("closed")
'''


@pytest.fixture(autouse=True)
def lock(install: object) -> None:
    assert callable(install)
    install("locks", {"agentrl.envs": {"lock": "lock_env:Lock"}}, modules={"lock_env": LOCK})


def played(typed: str, *arguments: str) -> tuple[int, str, str]:
    """Return the exit code and what was shown after the pipe gave what was typed."""
    done = subprocess.run(
        [*COMMAND, "lock", *arguments], input=typed, capture_output=True, text=True, check=False, timeout=300
    )
    return done.returncode, done.stdout, done.stderr


def test_a_person_is_told_what_agents_are_told_plays_and_is_judged_as_they_are() -> None:
    code, shown, _ = played("knock\n\nsesame\nnever read\n", "--task", "sesame-0", "--seed", "7")
    assert code == 0
    assert shown.startswith(
        "task sesame-0 of learn, seed 7, kind sesame\n\nAgents are told:\nSay the word.\n"
    )
    assert "Locked, seed 7. The word is 'sesame'.\n1> knock\nYou said 'knock'.\n2> \n2> sesame\n" in shown
    assert shown.endswith(
        "You said 'sesame'.\n['knock', 'sesame']\n\nsuccess\nanswer: sesame\npassed: knocked\nwords: 2\n"
        "played under: dark, wet\n\nwhat counts as success:\nthe word 'sesame' is said\nclosed\n"
    )


def test_the_end_of_the_input_ends_the_episode() -> None:
    code, shown, _ = played("", "--task", "1")
    assert code == 0
    assert "\nfailure\npassed: knocked\nfailed: opened\nwords: 0\n" in shown
    # A last line without an end is an action all the same.
    assert "['please']" in played("please", "--task", "1")[1]


def test_an_action_may_have_several_lines() -> None:
    typed = "one \\\ntwo\n```python\nx = 1 + \\\n\nsesame\n```\n```one line```\nleft ```open\n"
    _, shown, _ = played(typed, "--task", "sesame-0")
    said = ["one \ntwo", "```python\nx = 1 + \\\n\nsesame\n```", "```one line```", "left ```open"]
    assert f"{said}\n" in shown


def test_the_expert_sees_all_that_was_shown_and_is_asked_only_by_a_question_mark() -> None:
    _, shown, _ = played("a\n?\n?\nrubbish\n?\n", "--task", "0")
    assert shown.count("the expert says: sesame (2 seen)\n") == 2
    assert "the expert does not know: LookupError: what now?\n" in shown
    assert "['a', 'rubbish']" in shown
    script = played("?\na\n?\na\n?\n", "--task", "0", "--set", "env.expert=script")[1]
    assert "in this turn of its own the expert says: knock\n" in script
    assert "in this turn of its own the expert says: sesame\n" in script
    assert "the expert does not know: ScriptEnded: the demonstration ended" in script
    assert "the env has no expert for this task\n" in played("?\n", "--set", "env.expert=none")[1]


def test_without_a_task_the_seed_draws_one() -> None:
    first = {played("", "--seed", str(seed))[1].split(",")[0] for seed in range(3)}
    assert first == {"task sesame-0 of learn", "task please-1 of learn"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--task", "sesam-0"], 2, "the split 'learn' has no task 'sesam-0'; did you mean 'sesame-0'? (or"),
        (
            ["--task", "2"],
            2,
            "no task '2'; there is 'sesame-0', 'please-1' (or name it by its place, from 0 to 1; --split",
        ),
        (["--split", "dev"], 2, "no split 'dev': there is learn"),
        (["--set", "env.polit=1"], 2, "env 'lock' has no option 'env.polit'; did you mean 'env.polite'?"),
        (
            ["--set", "steps=3"],
            2,
            "'steps' has no part in an episode that is played by hand: only options of the",
        ),
        (["--setup"], 2, "the env 'lock' needs no virtual environment of its own; leave --setup out"),
        (["--task", "0"], 1, "error: KeyError: 'the door is broken' (run with --debug for the traceback)"),
    ],
)
def test_what_goes_wrong_is_one_sentence(arguments: list[str], code: int, message: str) -> None:
    found, shown, told = played("kick\n", *arguments)
    assert found == code
    assert message in told
    assert told.count("\n") == 1
    assert shown.endswith("closed\n") == (code == 1)


def test_actions_may_come_from_a_file(tmp_path: Path) -> None:
    script = tmp_path / "actions"
    script.write_text("knock\r\nsesame\n")
    with script.open() as file:
        command = [*COMMAND, "lock", "--task", "0"]
        done = subprocess.run(command, stdin=file, capture_output=True, text=True, check=True, timeout=300)
    assert "['knock', 'sesame']\n\nsuccess\n" in done.stdout


def test_at_a_terminal_what_is_typed_is_not_repeated_and_ctrl_d_ends_and_ctrl_c_stops() -> None:
    assert "1> a\r\nYou said 'a'.\r\n2> ```\r\n... b\r\n... ```\r\n" in at_a_terminal(
        [("1> ", b"a\n"), ("2> ", b"```\n"), ("... ", b"b\n"), ("... ", b"```\n"), ("3> ", b"\x04")], 0
    )
    stopped = at_a_terminal([("1> ", b"\x03")], 130)
    assert stopped.endswith("1> \r\nclosed\r\nstopped\r\n")


def at_a_terminal(dialogue: list[tuple[str, bytes]], code: int) -> str:
    """Return what a terminal shows when each part is typed as soon as its prompt is there."""
    ours, theirs = pty.openpty()
    command = [*COMMAND, "lock", "--task", "0"]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, preexec_fn=_listen
    )
    os.close(theirs)
    try:
        shown = _talk(ours, process.pid, dialogue)
        assert process.wait() == code, shown
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return shown


def _listen() -> None:
    """Take Ctrl-C even where these tests run in the background, which is deaf to it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _talk(ours: int, leader: int, dialogue: list[tuple[str, bytes]]) -> str:
    shown, begun = "", 0
    for prompt, typed in dialogue:
        while (place := shown.find(prompt, begun)) < 0:
            more = _rest(ours)
            assert more, f"it ended before it asked {prompt!r}: {shown}"
            shown += more
        begun = place + len(prompt)
        if typed == b"\x03":
            os.killpg(leader, signal.SIGINT)  # as the terminal that a process leads would do
        else:
            os.write(ours, typed)
    while more := _rest(ours):
        shown += more
    return shown


def _rest(file: int) -> str:
    try:
        return os.read(file, 4096).decode()
    except OSError:  # Linux says so when nobody else has the terminal open
        return ""
