"""``uptier evaluate``: what a learnt policy would save and can promise, before it is live."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cli import plots
from cli.evaluation_json import as_object
from cli.output import bar, out, percent, print_json
from cli.policy import adopted_object, put_in_force, show_adopted
from cli.sources import Source, of_run, of_trace
from config.errors import InputError
from config.settings import load_settings
from ledger.policies import Kept
from routing import evaluation
from routing.evaluation import ESCALATING, Evaluation, Resplits, Score
from routing.guarantee import Goal

Traces = Annotated[list[Path] | None, typer.Argument(metavar="TRACE...", show_default=False)]


@dataclass(frozen=True)
class Found:
    """A source and what came of it."""

    source: Source
    once: Evaluation
    again: Resplits | None


def evaluate(
    traces: Traces = None,
    run: Annotated[str | None, typer.Option(help="score a run of the ledger instead")] = None,
    profile: Annotated[str | None, typer.Option(help="the profile of the run's lanes")] = None,
    target: Annotated[float, typer.Option(help="share of the top's accuracy to keep")] = 0.95,
    delta: Annotated[float, typer.Option(help="chance that this fails")] = 0.1,
    resplits: Annotated[int, typer.Option(min=0, help="random halves to repeat it on")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="all chance comes from it")] = 0,
    plot: Annotated[Path | None, typer.Option(help="draw frontier and calibration, a .png")] = None,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="put what the run taught in force, if certified")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print everything as JSON")] = False,
) -> int:
    """Learn a policy on labelled rows, certify it, and score it on rows it has not seen."""
    goal = _goal(target, delta)
    _check(traces, run, adopt=adopt, plot=plot)
    settings = load_settings(profile=profile)
    if run:
        sources = [of_run(settings, run, seed, adopt=adopt)]
    else:
        sources = [of_trace(path, seed) for path in traces or []]
    found = [_evaluated(source, goal, resplits, seed) for source in sources]
    if plot is not None:
        plots.plot(plot, [(one.source.name, one.once) for one in found])
    adopted = put_in_force(settings, found[0].source, found[0].once) if adopt else None
    _print(found, adopted, adopt=adopt, as_json=as_json)
    if adopt and adopted is None:
        raise InputError(f"--run {run!r}: {ESCALATING}; nothing is adopted, label more of it")
    return 0


def _check(
    traces: Sequence[Path] | None, run: str | None, *, adopt: bool, plot: Path | None
) -> None:
    if adopt and run is None:
        raise InputError("--adopt takes --run: what goes live is learnt from a run of the ledger")
    if (run is None) == (not traces):
        raise InputError("name what to evaluate: either traces (.jsonl.gz) or --run with its id")
    if plot is not None:
        plots.check_plots(plot)


def _print(found: Sequence[Found], adopted: Kept | None, *, adopt: bool, as_json: bool) -> None:
    left_out = found[0].source.left_out
    if as_json:
        shown = [as_object(f.source.name, f.once, f.again, f.source.unit) for f in found]
        if adopt:
            shown[0]["adopted"] = adopted_object(adopted, left_out)
        print_json(json.dumps(shown[0] if len(shown) == 1 else shown, indent=2))
        return
    for one in found:
        _show(one)
    if adopted is not None:
        show_adopted(adopted, left_out)


def _goal(target: float, delta: float) -> Goal:
    try:
        return Goal(target, delta)
    except ValueError as error:
        raise InputError(f"--{error}") from None


def _evaluated(source: Source, goal: Goal, n: int, seed: int) -> Found:
    rows, marked = source.rows, source.calibration
    once = evaluation.evaluate(rows.take(marked), rows.take(~marked), goal, seed)
    if not n:
        return Found(source, once, None)
    with bar() as progress:
        task = progress.add_task(source.name, total=n, detail="random halves")
        again = evaluation.resplits(rows, goal, n, seed, lambda: progress.advance(task))
    return Found(source, once, again)


def _show(found: Found) -> None:
    one, goal = found.once, found.once.goal
    out.print(f"\n{found.source.name}: {one.rows} test rows, top {one.top}", markup=False)
    table = Table("", "accuracy", "by the top's", f"{found.source.unit} a decision", "by the top's",
                  box=None)  # fmt: skip
    lines = {f"always {model}": score for model, score in one.singles.items()}
    lines |= {"policy": one.policy, "random at the same rate": one.random_at_same_rate,
              "oracle": one.oracle, "naive threshold": one.naive,
              "policy without a bound": one.unbounded}  # fmt: skip
    for name, score in lines.items():
        table.add_row(name, *_figures(score))
    out.print(table)
    promise = f"{percent(goal.target)} of the top's accuracy with probability {1 - goal.delta:g}"
    out.print(f"{promise}: {_verdict(one)}")
    if one.ordering.apgr is not None:
        order = one.ordering
        out.print(
            f"APGR {order.apgr:.3f}, CPT(50 %) {percent(order.cpt50)}, "
            f"CPT(80 %) {percent(order.cpt80)}"
        )
    for model, error in one.calibration_error.items():
        out.print(f"ECE of {model}: {one.stated_error[model]:.3f} -> {error:.3f}", markup=False)
    if found.again is not None:
        _show_resplits(found.again)


def _verdict(one: Evaluation) -> str:
    if not one.certified:
        return ESCALATING
    return "certified" + (", but these test rows fell short" if one.violated else "")


def _show_resplits(again: Resplits) -> None:
    out.print(
        f"{again.n} random halves: below the target in {percent(again.violation_rate)}, at "
        f"{again.cost_ratio:.3f} of the top's cost"
    )
    for name, one in (("naive threshold", again.naive), ("without a bound", again.unbounded)):
        out.print(f"  {name}: {percent(one.violation_rate)}, {one.cost_ratio:.3f}")


def _figures(score: Score) -> tuple[str, ...]:
    return (
        percent(score.accuracy),
        f"{score.relative_accuracy:.3f}",
        f"{score.cost_usd:.6g}",
        f"{score.cost_ratio:.3f}",
    )
