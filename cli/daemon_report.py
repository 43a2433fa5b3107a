"""How a daemon's run is shown: its iterations, what waits for a person, and the run's report."""

from __future__ import annotations

import json

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.chat_screen import printable
from cli.output import out
from cli.report import print_report
from producers.swarm.state import shortened
from producers.swarm.summary import DaemonStatus, StepLine

WIDE = 1000  # columns; a table takes what it needs of them
ARGUMENT_CHARS = 40
NOTE_CHARS = 80


def print_status(found: DaemonStatus) -> None:
    """Tables on standard output."""
    out.print(f"Objective  {found.objective}", markup=False)
    out.print(f"Directory  {found.workdir}", markup=False)
    ending = f": {found.ending}" if found.ending else ""
    out.print(f"Iteration  {found.iteration} of {found.max_iterations}{ending}")
    for name, counts in (("Actions", found.actions), ("Classes", found.classes),
                         ("Outcomes", found.states), ("Memories", found.memories)):  # fmt: skip
        text = ", ".join(f"{key or 'none'} {count}" for key, count in counts.items())
        out.print(f"{name:<10} {text or 'none'}")
    if found.killed:
        out.print(f"Kill file  {found.kill_file} is there: remove it to go on", markup=False)
    if found.steps:
        Console(width=WIDE, highlight=False).print(_steps(found.steps))
    for one in found.approvals:
        given = printable(json.dumps(one.arguments, ensure_ascii=False))
        out.print(f"{one.state:<10} {one.id} {one.action} {given}: {one.reason}", markup=False)
    print_report(found.report)


def _steps(lines: list[StepLine]) -> Table:
    table = Table("#", "action", "with", "class", "ruling", "outcome", "note", box=None)
    for line in lines:
        given = shortened(", ".join(str(v) for v in line.arguments.values()), ARGUMENT_CHARS)
        table.add_row(
            str(line.iteration), line.action, escape(printable(given)), line.complexity,
            line.ruling or "-", line.state, escape(printable(shortened(line.note, NOTE_CHARS))),
        )  # fmt: skip
    return table
