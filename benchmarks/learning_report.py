"""The table and the curves of `learning.py`."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any


def write_report(curves: Sequence[Any], budgets: Mapping[str, int], page: Path | None) -> None:
    """Print a table for each env, and put tables and plots into `page`, between its marks.

    Success is read after `budgets[env]` trajectories.
    """
    groups: dict[tuple[str, str], list[Any]] = {}
    for curve in curves:
        groups.setdefault((curve.contender.table, curve.env), []).append(curve)
    parts = []
    for (table, env), found in groups.items():
        parts.append(make_table(env, found, budgets[env]))
        print(f"\n{parts[-1]}")
        if page is not None and table == "algorithms":
            image = draw(env, found, budgets[env], page)
            parts.append(f"![success on {env}]({image.name})")
    if page is not None:
        put(parts, page)


def put(parts: Sequence[str], page: Path, name: str = "learning") -> None:
    """Put `parts` into `page`, between the marks of that name."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = page.read_text()
    if begin not in text or end not in text:
        raise SystemExit(f"{page} has no place for this table: {begin} and {end}")
    body = "\n\n".join([begin, *parts, end])
    page.write_text(re.sub(f"{re.escape(begin)}.*{re.escape(end)}", lambda _: body, text, flags=re.DOTALL))


def make_table(env: str, curves: Sequence[Any], budget: int) -> str:
    """Return an env's table in Markdown: success over seeds at the end, and its mean on the way."""
    heads = f"{env}: success after {budget:,} trajectories | on the way"
    lines = [f"| name | credit | loss | paper | {heads} |", "|" + "---|" * 6]
    for contender in dict.fromkeys(curve.contender for curve in curves):
        paper = f"[{contender.paper}](https://arxiv.org/abs/{contender.paper})" if contender.paper else ""
        words = [contender.name, contender.credit, contender.loss, paper, cell(curves, contender, budget)]
        lines.append("| " + " | ".join(words) + " |")
    return "\n".join(lines)


def cell(curves: Sequence[Any], contender: Any, budget: int) -> str:
    """Return the success at the end, its range over seeds, and the mean success on the way."""
    mine = [curve for curve in curves if curve.contender == contender]
    ends = [curve.at(budget) for curve in mine]
    way = fmean(on_the_way(curve, budget) for curve in mine)
    return f"**{fmean(ends):.1%}** ({min(ends):.1%} to {max(ends):.1%}) | {way:.1%}"


def on_the_way(curve: Any, budget: int, points: int = 101) -> float:
    """Return the mean success from the first to the last trajectory."""
    return fmean(curve.at(round(budget * k / (points - 1))) for k in range(points))


def draw(env: str, curves: Sequence[Any], budget: int, page: Path) -> Path:
    """Draw the curves of an env, mean over seeds, beside `page`, and return the picture's path."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "agentrl"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    colours = pyplot.get_cmap("tab20").colors
    contenders = list(dict.fromkeys(curve.contender for curve in curves))
    for place, contender in enumerate(contenders):
        of_it = [curve for curve in curves if curve.contender == contender]
        xs = [round(budget * k / 20) for k in range(21)]
        ys = [[curve.at(x) for curve in of_it] for x in xs]
        colour = colours[place % len(colours)]
        axes.plot(xs, [fmean(y) for y in ys], label=contender.name, color=colour, linewidth=1.8)
        axes.fill_between(xs, [min(y) for y in ys], [max(y) for y in ys], color=colour, alpha=0.08)
    axes.set(xlabel="trajectories", ylabel="success on held-out tasks", title=env, xlim=(0, budget))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, ncols=2, loc="lower right")
    path = page.parent / f"algorithms-{env}.svg"
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path
