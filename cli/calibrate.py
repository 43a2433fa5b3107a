"""``uptier models calibrate``: corrects label probabilities by what has been learnt of them."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine

from cli.output import bar, out, percent, print_json
from config.catalog import Catalog, OutputType
from config.errors import InputError
from config.settings import Settings, load_settings
from ledger.calibrations import forget
from ledger.clock import now
from ledger.database import migrate, open_ledger
from ledger.runs import find_run
from producers.prompts import load_template
from workers.calibrate import calibrate as calibrate_model
from workers.corrections import Finding, Form

WITHOUT_CONTENT = ("", "N/A", "[MASK]")
"""What stands in for every value of a state; the three of Zhao et al. 2021, section 5."""
WIDE = 1000  # columns; a table takes what it needs of them


def calibrate(
    profile: Annotated[str | None, typer.Option(help="catalog of models, or a .toml file")] = None,
    model: Annotated[str | None, typer.Option(help="this one only")] = None,
    kind: Annotated[str | None, typer.Option(help="this one only")] = None,
    run: Annotated[str | None, typer.Option(help="learn from this run only")] = None,
    reset: Annotated[bool, typer.Option(help="take corrections back instead")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print everything as JSON")] = False,
) -> int:
    """Correct models' label probabilities; only what proves good on held-out history is kept."""
    settings = load_settings(profile=profile)
    models = _models(settings.catalog, model)
    forms = _forms(settings.catalog, kind)
    migrate(settings)
    engine = open_ledger(settings)
    try:
        if reset:
            return _reset(settings, engine, models, [form.kind for form in forms])
        if run is not None and find_run(engine, run) is None:
            raise InputError(f"--run {run!r} is not in the ledger: check the id")
        found = _calibrate(settings, engine, models, forms, run)
    finally:
        engine.dispose()
    if as_json:
        print_json(json.dumps([_as_json(one) for one in found], indent=2))
    else:
        _show(found)
    return 0


def _models(catalog: Catalog, name: str | None) -> list[str]:
    """The models of lanes that cost nothing: questions to the others would have to be paid."""
    free = {lane.model: None for key, lane in catalog.lanes.items() if not catalog.is_paid(key)}
    if name is None and free:
        return list(free)
    if name in free:
        return [name]
    known = ", ".join(free) or "none: name a profile with a local lane"
    raise InputError(
        f"--model {name!r} serves no free lane of profile {catalog.profile!r}: choose one of "
        f"{known}"
    )


def _forms(catalog: Catalog, name: str | None) -> list[Form]:
    """The kinds that ask for a choice by a template."""
    able = {
        key: kind.template
        for key, kind in catalog.kinds.items()
        if kind.template and kind.output is OutputType.CHOICE
    }
    if name is not None and name not in able:
        raise InputError(
            f"--kind {name!r} is no choice by a template in profile {catalog.profile!r}: choose "
            f"one of {', '.join(able)}"
        )
    return [_form(catalog, key, able[key]) for key in able if name in (None, key)]


def _form(catalog: Catalog, kind: str, template_name: str) -> Form:
    template = load_template(template_name)
    return Form(
        kind=kind,
        template=template.id,
        system=template.system,
        content_free=tuple(
            template.fill(dict.fromkeys(template.fields, word)) for word in WITHOUT_CONTENT
        ),
        labels=catalog.kinds[kind].labels,
    )


def _reset(settings: Settings, engine: Engine, models: list[str], kinds: list[str]) -> int:
    for model in models:
        lanes = [key for key, lane in settings.catalog.lanes.items() if lane.model == model]
        count = forget(engine, model, kinds, lanes, now())
        out.print(f"{model}: {count} corrections taken back", markup=False)
    return 0


def _calibrate(
    settings: Settings, engine: Engine, models: list[str], forms: list[Form], run: str | None
) -> list[Finding]:
    found: list[Finding] = []
    with bar() as progress:
        for model in models:
            task = progress.add_task(model, total=None, detail="inputs without content")

            def told(done: int, total: int, task: Any = task) -> None:
                progress.update(task, completed=done, total=total)

            found += calibrate_model(settings, engine, model, forms, run_id=run, told=told)
    return found


def _show(found: list[Finding]) -> None:
    table = Table("model", "kind", "samples", "questions", "held out", "bias from", "strength",
                  "span, nats", "T", "ECE before", "after", "accuracy before", "after", "",
                  box=None)  # fmt: skip
    for one in found:
        table.add_row(*_row(one))
    Console(width=WIDE, highlight=False).print(table)
    held = sum(one.stored for one in found)
    out.print(f"{held} of {len(found)} stored; workers take them up within a minute", markup=False)


def _row(one: Finding) -> tuple[str, ...]:
    before, after = one.before, one.after
    shown = ("-", "-", "-", "-")
    if before is not None and after is not None:
        shown = (f"{before.ece:.3f}", f"{after.ece:.3f}",
                 percent(before.accuracy), percent(after.accuracy))  # fmt: skip
    notes = ("stored" if one.stored else "", one.note)
    return (
        one.subject.model,
        one.subject.kind,
        str(one.samples),
        str(one.questions),
        str(one.held_out),
        one.method,
        f"{one.strength:g}",
        f"{one.correction.span:.2f}",
        f"{one.correction.temperature:.2f}",
        *shown,
        "; ".join(note for note in notes if note),
    )


def _as_json(one: Finding) -> dict[str, Any]:
    return {**asdict(one), "span": one.correction.span}
