"""`agentrl doctor`: what is usable here."""

_MARKS = {"usable": "[green]usable[/]", "missing": "[yellow]missing[/]", "broken": "[red]broken[/]"}


def doctor() -> None:
    """Say what of torch, GPU, browser and the other optional parts is usable, and how to add what is not."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from agentrl.display import wide_console
    from agentrl.doctor import examine

    table = Table("part", "state", "what is there", "what to do", box=box.SIMPLE)
    for finding in examine():
        advice = escape(finding.advice)
        table.add_row(finding.name, _MARKS[finding.state], escape(finding.detail), advice)
    wide_console().print(table)
