"""How numbers are shown: tables with confidence intervals, times as people say them."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from agentrl.comparison import Comparison
    from agentrl.evaluation import Evaluation
    from agentrl.task_record import Digest

# What is shown of an update's metrics, in this order; all of them are in metrics.jsonl.
_COLUMNS = {
    "reward": "reward",
    "success": "success",
    "policy/entropy": "entropy",
    "trainer/entropy": "entropy",
    "entropy": "entropy",
    "failed": "failed",
    "cut_off": "cut off",
}
# Of these, what is not 0.
_EXCEPTIONS = frozenset({"failed", "cut_off"})
_HEIGHTS = "▁▂▃▄▅▆▇█"
_DIGEST = ("groups", "trajectories", "reward", "success", "taught", "kept")


class Clock:
    """Tells how long updates take, and how long the rest of them will."""

    def __init__(self) -> None:
        """Start now."""
        self.restart()
        self._mean: float | None = None
        self.last = 0.0

    def restart(self) -> None:
        """Leave out the time until now."""
        self._before = time.monotonic()

    def tick(self) -> None:
        """Take note that an update is over."""
        now = time.monotonic()
        self.last, self._before = now - self._before, now
        # Recent updates count more: answers get longer or shorter as the model learns.
        self._mean = self.last if self._mean is None else 0.9 * self._mean + 0.1 * self.last

    def describe(self, updates_left: int) -> str:
        """Return the seconds of the last update and of those that are left."""
        left = (self._mean or 0.0) * updates_left
        return f"{self.last:.1f} s, {duration(left)} left" if updates_left > 0 else f"{self.last:.1f} s"


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def chosen(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics worth showing."""
    return {
        label: metrics[name]
        for name, label in _COLUMNS.items()
        if name in metrics and (name not in _EXCEPTIONS or metrics[name] > 0)
    }


def evaluation_title(evaluation: "Evaluation") -> str:
    """Return what one evaluation is of."""
    title = f"{evaluation.tasks} tasks of {evaluation.split}, {evaluation.trajectories} episodes"
    return f"{title}, {evaluation.failed} of them failed and left out" if evaluation.failed else title


def evaluation_table(evaluation: "Evaluation", names: Mapping[str, str]) -> Table:
    """Return the table of one evaluation; `names` are what people call metrics (see `Env.metric_names`)."""
    table = Table("metric", "mean", "95% interval", box=box.SIMPLE)
    for name, value in evaluation.metrics.items():
        table.add_row(_called(name, names), f"{value.mean:.3f}", f"{value.low:.3f} to {value.high:.3f}")
    return table


def tags_table(evaluation: "Evaluation") -> Table:
    """Return the table of what each condition did to success."""
    table = Table("tasks", "condition", "success with it", "success without it", "episodes", box=box.SIMPLE)
    for each in evaluation.tags:
        success = (_interval(asdict(one) if one else None) for one in (each.present, each.absent))
        counts = f"{each.episodes} and {each.others}"
        table.add_row(escape(each.tasks), escape(each.tag), *success, counts)
    return table


def summary_title(summary: Mapping[str, Any]) -> str:
    """Return what the table of a summary is of."""
    failed = summary.get("failed_held_out_episodes")
    left_out = f"; {failed} episodes of the last evaluation failed and are left out" if failed else ""
    took = duration(summary["wall_seconds"])
    return (
        f"{summary['held_out_tasks']} held-out tasks of {summary['split']}, before and after "
        f"{summary['steps']} updates in {took}; means with 95% intervals{left_out}"
    )


def summary_table(summary: Mapping[str, Any]) -> Table:
    """Return the table *before to after* of a run's summary."""
    table = Table("metric", "before", "after", box=box.SIMPLE)
    for name, pair in summary["metrics"].items():
        name = _called(name, summary.get("metric_names", {}))
        table.add_row(name, _interval(pair["before"]), _interval(pair["after"]))
    return table


def busy_chart(summary: Mapping[str, Any]) -> str:
    """Return a bar for engine, envs and trainer: the share of the updates' time in which each worked."""
    shares = dict(summary.get("busy", {}))
    stale = shares.pop("staleness", None)
    bars = [f"{name} {_bar(share)} {share:.0%}" for name, share in shares.items()]
    if stale is not None:
        bars.append(f"staleness {stale:.2f}")
    return f"busy: {'  '.join(bars)}" if shares else ""


def busy_marks(metrics: Mapping[str, float]) -> dict[str, str]:
    """Return how busy each part was in an update, from ▁ to █, by its name; nothing where nobody knows."""
    shares = {name: share for name, share in metrics.items() if name.startswith("busy/")}
    return {
        name.removeprefix("busy/"): _HEIGHTS[round(min(1.0, max(0.0, share)) * 7)]
        for name, share in shares.items()
    }


def _bar(share: float, width: int = 10) -> str:
    full = round(min(1.0, max(0.0, share)) * width)
    return "█" * full + "░" * (width - full)


def steps_table(rows: Sequence[Mapping[str, str]]) -> Table:
    """Return the table of the last updates."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(*names, box=box.SIMPLE)
    for row in rows:
        table.add_row(*(row.get(name, "") for name in names))
    return table


def digest_table(names: Sequence[str], digests: Sequence["Digest"]) -> Table:
    """Return the table of digests of a run's tasks; `names` are those of the fields in their keys."""
    single = "task" in names
    table = Table(*names, "last step" if single else "tasks", *_DIGEST, box=box.SIMPLE)
    for each in digests:
        key = ("-" if value is None else escape(str(value)) for value in each.key)
        counts = (each.last if single else each.tasks, each.groups, each.trajectories)
        shares = (each.reward, each.success, each.taught, each.kept)
        table.add_row(*key, *map(str, counts), *("-" if x is None else f"{x:.3f}" for x in shares))
    return table


def comparison_table(comparisons: Sequence["Comparison"]) -> Table:
    """Return the table of old and new scores."""
    columns = ("old mean", "new mean", "changed", "correlation with old", "with success")
    table = Table("reward", *columns, box=box.SIMPLE)
    for each in comparisons:
        numbers = (each.old, each.new, each.changed, each.alike, each.with_success)
        name = "weighted sum" if each.name == "reward" else escape(each.name)
        table.add_row(name, *("-" if x is None else f"{x:.3f}" for x in numbers))
    return table


def _called(name: str, names: Mapping[str, str]) -> str:
    """Return a metric's name, behind what people call it."""
    return escape(f"{names[name]} ({name})" if name in names else name)


def _interval(value: Mapping[str, float] | None) -> str:
    if value is None:
        return "-"
    return f"{value['mean']:.3f} \\[{value['low']:.3f}, {value['high']:.3f}]"
