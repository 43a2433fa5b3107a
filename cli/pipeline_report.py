"""What a pipeline's run came to, as a table and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cli.output import out, print_json, usd
from config.errors import UptierError
from config.load import load_catalog
from config.settings import Settings
from ledger.database import open_ledger
from ledger.reports import Report, report
from ledger.runs import find_run
from producers.pipeline.files import file_hash
from producers.pipeline.plan import read_json
from producers.pipeline.state import Condition, PipelineState, Standing, StepState

WIDE = 1000  # columns; a table takes what it needs of them


def print_state(state: PipelineState, workdir: Path, settings: Settings, *, as_json: bool) -> None:
    """Show a run: its steps, what waits for whom, and what it took."""
    rows = [_row(step, workdir) for step in state.steps]
    figures = _figures(state, settings)
    whole = _whole(state, rows)
    if as_json:
        found = {
            **state.model_dump(mode="json", exclude={"steps"}), "workdir": str(workdir),
            "steps": rows, **whole, "report": None if figures is None else figures.model_dump(),
        }  # fmt: skip
        print_json(as_json_text(found))
        return
    _print(state, rows, whole, figures, workdir)


def as_json_text(value: Any) -> str:
    """JSON for a reader."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def _row(step: StepState, workdir: Path) -> dict[str, Any]:
    """A step's state, with what its file says, if that is still the one that was written."""
    row: dict[str, Any] = step.model_dump(mode="json")
    path = workdir / step.file
    row["intact"] = step.hash is not None and path.is_file() and file_hash(path) == step.hash
    if not row["intact"]:
        return row
    content = read_json(path)
    metadata = content["agent_metadata"]
    llm = metadata["llm_metadata"]
    sums = content["calculations"]
    return row | {
        "retries": metadata["retry_count"],
        "calls": llm["orchestrator_calls"] + llm["math_calls"],
        "tokens": llm["total_tokens_generated"],
        "decision": llm["llm_decision"],
        "calculations": len(sums),
        "calculations_right": sum(1 for one in sums if one["right"]),
        "figures": content["figures"],
        "notes": content["notes"],
    }


def _whole(state: PipelineState, rows: list[dict[str, Any]]) -> dict[str, Any]:
    written = [row for row in rows if row["intact"]]
    return {
        "unattended": state.unattended,
        "calculations": sum(row["calculations"] for row in written),
        "calculations_right": sum(row["calculations_right"] for row in written),
    }


def _figures(state: PipelineState, settings: Settings) -> Report | None:
    """The ledger's report of the run, if it is begun and the profile can still be read."""
    if not state.run:
        return None
    engine = open_ledger(settings)
    try:
        run = find_run(engine, state.run)
        return None if run is None else report(engine, settings, load_catalog(run.profile), run)
    except UptierError:  # its profile is gone
        return None
    finally:
        engine.dispose()


def _print(
    state: PipelineState,
    rows: list[dict[str, Any]],
    whole: dict[str, Any],
    figures: Report | None,
    workdir: Path,
) -> None:
    table = Table("step", "name", "standing", "confidence", "decision", "retries", "calls",
                  "tokens", "file", box=None, pad_edge=False)  # fmt: skip
    for row in rows:
        table.add_row(*_cells(row))
    Console(width=WIDE, highlight=False).print(table)
    out.print(f"Run       {state.run}: {state.condition.value}", markup=False)
    if state.failure:
        out.print(f"Failed    {state.failure}", markup=False)
    _print_waiting(state, workdir)
    out.print(
        f"Checked   {whole['calculations_right']} of {whole['calculations']} calculations right"
    )
    if figures is not None:
        tokens = figures.tokens["output"]
        out.print(
            f"Took      {figures.decisions.total} decisions, {tokens} tokens, "
            f"{usd(figures.cost_usd)}, {figures.seconds:.1f} s"
        )
    out.print(f"Files     {workdir}", markup=False)


def _cells(row: dict[str, Any]) -> list[str]:
    sure = "-" if row["confidence"] is None else f"{row['confidence']:.2f}"
    standing = "approved" if row["approved"] else row["standing"]
    known = [str(row.get(name, "-")) for name in ("decision", "retries", "calls", "tokens")]
    file = row["file"] if row["intact"] or row["hash"] is None else f"{row['file']} (changed)"
    return [str(row["number"]), row["name"], standing, sure, *known, file if row["hash"] else "-"]


def _print_waiting(state: PipelineState, workdir: Path) -> None:
    step = state.next
    if step is None or state.condition not in (Condition.WAITING, Condition.REJECTED):
        return
    for why in step.why:
        out.print(f"Because   {why}", markup=False)
    if step.standing is Standing.WAITING:
        out.print(f"Look at   {workdir / step.file}", markup=False)
        again = f"uptier pipeline run {state.config} --workdir {workdir} --profile {state.profile}"
        out.print(f"Then      {again} --approve (or --reject)", markup=False)
