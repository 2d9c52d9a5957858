"""The table and the curves of `learning.py`."""

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

MARKS = "<!-- learning: begin -->", "<!-- learning: end -->"


def write_report(curves: Sequence[Any], budget: int, page: Path | None) -> None:
    """Print the table, and put table and plot into `page`, between its marks."""
    names = dict.fromkeys(curve.contender.table for curve in curves)
    of_table = {name: [curve for curve in curves if curve.contender.table == name] for name in names}
    table = "\n\n".join(make_table(found, budget) for found in of_table.values())
    print(f"\n{table}")
    if page is None:
        return
    plotted = of_table.get("algorithms", [])
    images = [draw(env, plotted, budget, page) for env in dict.fromkeys(curve.env for curve in plotted)]
    pictures = "\n".join(f"![{image.stem}]({image.name})" for image in images)
    text, (begin, end) = page.read_text(), MARKS
    body = f"{begin}\n{table}\n\n{pictures}\n{end}"
    page.write_text(re.sub(f"{re.escape(begin)}.*{re.escape(end)}", lambda _: body, text, flags=re.DOTALL))


def make_table(curves: Sequence[Any], budget: int) -> str:
    """Return the table in Markdown: mean and range of success over seeds, and the mean over the curve."""
    envs = list(dict.fromkeys(curve.env for curve in curves))
    heads = [f"{env}: after {budget:,} trajectories | on the way" for env in envs]
    lines = ["| name | credit | loss | paper | " + " | ".join(heads) + " |"]
    lines.append("|" + "---|" * (4 + 2 * len(envs)))
    for contender in dict.fromkeys(curve.contender for curve in curves):
        cells = [cell(curves, contender, env, budget) for env in envs]
        paper = f"[{contender.paper}](https://arxiv.org/abs/{contender.paper})" if contender.paper else ""
        words = [contender.name, contender.credit, contender.loss, paper, *cells]
        lines.append("| " + " | ".join(words) + " |")
    return "\n".join(lines)


def cell(curves: Sequence[Any], contender: Any, env: str, budget: int) -> str:
    """Return the success at the end, its range over seeds, and the mean success on the way."""
    mine = [curve for curve in curves if curve.contender == contender and curve.env == env]
    if not mine:
        return "| "
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
    mine = [curve for curve in curves if curve.env == env]
    contenders = list(dict.fromkeys(curve.contender for curve in mine))
    for place, contender in enumerate(contenders):
        of_it = [curve for curve in mine if curve.contender == contender]
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
