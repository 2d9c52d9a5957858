"""Shows the graph as one HTML page: the picture, and a table of trajectories that lights up their ways."""

from html import escape

from agentrl_salt.graph import Graph, Path
from agentrl_salt.picture import draw, signed

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 14px/1.4 Helvetica, Arial, sans-serif; margin: 1rem; color: #1c2024 }}
.picture {{ overflow: auto; border: 1px solid #d0d7de; margin-bottom: 1rem }}
svg {{ display: block }}
table {{ border-collapse: collapse }}
td, th {{ padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #d0d7de }}
td:last-child, th:last-child {{ text-align: left }}
tbody tr:hover {{ background: #eef2f6 }}
.chosen .edge {{ opacity: .12 }}
{rules}
</style>
<div class="picture">
{picture}</div>
<table>
<thead><tr><th>trajectory<th>end<th>reward<th>advantage<th>steps<th>advantage of its steps</thead>
<tbody>
{rows}
</tbody>
</table>
<script>
const picture = document.querySelector(".picture");
for (const row of document.querySelectorAll("tbody tr")) {{
  row.onmouseenter = () => picture.classList.add("chosen", row.id);
  row.onmouseleave = () => picture.classList.remove("chosen", row.id);
}}
</script>
</html>
"""


def make_page(graph: Graph, subtitle: str) -> str:
    """Return the page of a graph; `subtitle` says what it is of."""
    places = range(len(graph.paths))
    return _PAGE.format(
        title=escape(f"SALT graph of task {graph.task}"),
        rules="\n".join(f".chosen.t{place} .edge.t{place} {{ opacity: 1 }}" for place in places),
        picture=draw(graph, subtitle),
        rows="\n".join(_row(graph, place, graph.paths[place]) for place in places),
    )


def _row(graph: Graph, place: int, path: Path) -> str:
    steps = " ".join(signed(graph.arrows[arrow].advantage) for arrow in path.arrows)
    cells = (
        f"{place + 1}",
        path.end,
        f"{path.reward:.3g}",
        f"{path.advantage:+.3f}",
        f"{len(path.arrows)}",
        steps,
    )
    return f'<tr id="t{place}">' + "".join(f"<td>{cell}" for cell in cells)
