import io
from pathlib import Path
from typing import Any

from rich.console import Console

from agentrl.display import Display, LiveDisplay, PlainDisplay
from agentrl.early_signs import Beside
from agentrl.evaluation import Evaluation
from agentrl.statistics import Estimate
from agentrl.tables import Clock, duration

EVALUATION = Evaluation(
    "dev", 5, 5, 0, {"reward": Estimate(0.5, 0.25, 0.75, 5), "turns": Estimate(2, 1, 3, 5)}
)
SUMMARY: dict[str, Any] = {
    "held_out_tasks": 200,
    "split": "dev",
    "steps": 30,
    "wall_seconds": 75.0,
    "metrics": {
        "success": {
            "before": {"mean": 0.47, "low": 0.4, "high": 0.54, "count": 200},
            "after": {"mean": 0.93, "low": 0.89, "high": 0.96, "count": 200},
        },
        "new": {"before": None, "after": {"mean": 1.0, "low": 0.9, "high": 1.0, "count": 200}},
    },
}


def tell(display: Display) -> None:
    with display:
        display.started("env: toy\nlong: " + "x" * 200, Path("runs/one"))
        display.phase("evaluate", "5 held-out tasks")
        display.episodes(3, 5)
        display.evaluated(0, EVALUATION, Beside())
        display.step(
            1,
            2,
            {
                "reward": 0.25,
                "success": 0.5,
                "policy/entropy": 1.5,
                "failed": 0.0,
                "cut_off": 0.0,
                "trainer/loss": 3.0,
            },
        )
        display.step(2, 2, {"reward": 0.75, "failed": 0.125, "cut_off": 0.0625})
        display.warn("[bold] env is stuck")
        display.note("all is well")
        display.finished(SUMMARY)


def shown(display_type: type[PlainDisplay], **options: Any) -> str:
    console = Console(file=io.StringIO(), width=100, **options)
    display = display_type(console)
    display._errors = console
    tell(display)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_without_a_terminal_every_update_is_a_line() -> None:
    lines = shown(PlainDisplay).splitlines()
    assert lines[0] == "env: toy"
    assert lines[1].endswith("xxx...")
    assert lines[2:5] == [
        "run directory: runs/one",
        "evaluate: 5 held-out tasks",
        "step 0, 5 held-out tasks of dev:  reward 0.500 [0.250, 0.750]",
    ]
    assert lines[5].startswith("step 1/2  reward 0.250  success 0.500  entropy 1.500  0.0 s, 0 s left")
    assert lines[6].startswith("step 2/2  reward 0.750  failed 0.125  cut off 0.062  0.0 s")
    assert lines[7:10] == [
        "warning: [bold] env is stuck",
        "note: all is well",
        "200 held-out tasks of dev, before and after 30 updates in 1 min 15 s; means with 95% intervals",
    ]
    assert "  success   0.470 [0.400, 0.540]   0.930 [0.890, 0.960]  " in lines
    assert "  new       -                      1.000 [0.900, 1.000]  " in lines


def test_on_a_terminal_there_is_a_column_for_what_was_cut_off_once_something_was() -> None:
    console = Console(file=io.StringIO(), width=100)
    display = LiveDisplay(console)

    def step(number: int, cut_off: float) -> str:
        display.step(number, 2, {"reward": 0.5, "cut_off": cut_off})
        with console.capture() as table:
            console.print(display._render())
        return table.get()

    assert "cut off" not in step(1, 0.0)
    assert "cut off" in (table := step(2, 0.0625))
    assert "0.062" in table


def test_on_a_terminal_the_same_is_told() -> None:
    text = shown(LiveDisplay, force_terminal=True)
    for part in ("env: toy", "reward", "0.750", "warning: ", "success", "0.930"):
        assert part in text


def test_a_display_that_shows_nothing_remembers_the_folder() -> None:
    display = Display()
    tell(display)
    assert display.folder == Path("runs/one")


def test_times_read_as_people_say_them() -> None:
    assert [duration(seconds) for seconds in (0.4, 59.6, 61, 3600, 7384)] == [
        "0 s",
        "1 min 00 s",
        "1 min 01 s",
        "1 h 00 min",
        "2 h 03 min",
    ]
    clock = Clock()
    clock.tick()
    assert clock.describe(0).endswith(" s")
    assert clock.describe(3).endswith(" left")


def test_audited_metrics_and_the_reward_of_training_stand_beside_an_evaluation() -> None:
    console = Console(file=io.StringIO(), width=200)
    PlainDisplay(console).evaluated(8, EVALUATION, Beside(0.625, audit=("success", "turns")))
    assert isinstance(console.file, io.StringIO)
    line = console.file.getvalue()
    assert "reward 0.500 [0.250, 0.750]  turns 2.000 [1.000, 3.000]  (reward in training 0.625)" in line
