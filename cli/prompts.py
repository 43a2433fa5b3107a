"""``uptier models prompts``: the prompt templates, and how long a model finds them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cli.output import percent, print_json
from config.catalog import BackendName, Catalog
from config.errors import InputError
from config.settings import load_settings
from producers.pipeline.examples import example_decisions as pipeline_decisions
from producers.prompts import PROMPTS, Template, load_template
from producers.simulation.apply import KINDS
from producers.simulation.examples import example_decisions
from routing.decision import Decision, TextOutput
from workers.models import weights_path

WIDE = 1000  # columns; a table takes what it needs of them


@dataclass(frozen=True)
class Row:
    """A template with its tokens; ``own`` of a typical state, ``most`` of the longest one.

    Where the profile has none of its kinds, the own part is that of the state not filled in.
    """

    template: str
    version: str
    kinds: tuple[str, ...]
    shared: int
    own: float
    most: int
    states: int


def prompts(
    profile: Annotated[str | None, typer.Option(help="catalog of models, or a .toml file")] = None,
    model: Annotated[str | None, typer.Option(help="whose tokens are counted")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print everything as JSON")] = False,
) -> int:
    """Show every prompt template, its version, and the tokens of its shared and own parts."""
    settings = load_settings(profile=profile)
    name = _model(settings.catalog, model)
    rows = _rows(settings.catalog, weights_path(settings, name))
    if as_json:
        print_json(json.dumps({"model": name, "templates": [asdict(r) for r in rows]}, indent=2))
    else:
        _show(rows, name)
    return 0


def _rows(catalog: Catalog, path: Path) -> list[Row]:
    # Its libraries would delay the start of every other command.
    from workers.prompt_sizes import Question, sizes

    templates = [load_template(p.stem) for p in sorted(PROMPTS.glob("*.toml"))]
    examples = _examples(catalog)
    asked = [examples.get(template.id, []) for template in templates]
    questions = [
        Question(
            template.system,
            tuple(sorted({d.prompt for d in some})) or (template.state,),
            some[0].output if some else TextOutput(stops=None),
        )
        for template, some in zip(templates, asked, strict=True)
    ]
    return [
        Row(template.name, template.version, _kinds(catalog, template), size.shared, size.own,
            size.most, len({d.prompt for d in some}))
        for template, some, size in zip(templates, asked, sizes(path, questions), strict=True)
    ]  # fmt: skip


def _model(catalog: Catalog, name: str | None) -> str:
    """A model of a lane whose tokenizer is in its weights: the one asked for, or the cheapest."""
    lanes = sorted(catalog.lanes, key=catalog.rank)
    able = {catalog.lanes[n].model: None for n in lanes
            if catalog.lane_model(n).backend is BackendName.LLAMA_CPP}  # fmt: skip
    if name in able:
        return name
    if name is None and able:
        return next(iter(able))
    known = ", ".join(able) or "none: name a profile with a llama_cpp lane"
    raise InputError(
        f"--model {name!r} is no llama_cpp model of a lane of profile {catalog.profile!r}, so its "
        f"tokens cannot be counted: choose one of {known}"
    )


def _examples(catalog: Catalog) -> dict[str, list[Decision]]:
    """Decisions by template: of the pipeline, and of a simulated day where the profile has its
    kinds."""
    found = dict(pipeline_decisions())
    if all(kind in catalog.kinds for kind in KINDS):
        played = example_decisions(catalog)
        found |= {decisions[0].template: decisions for decisions in played.values()}
    return found


def _kinds(catalog: Catalog, template: Template) -> tuple[str, ...]:
    return tuple(name for name, kind in catalog.kinds.items() if kind.template == template.name)


def _show(rows: list[Row], model: str) -> None:
    table = Table("template", "version", "shared tokens", "own tokens", "longest", "shared part",
                  "states", box=None, title=f"tokens of {model}", title_justify="left")  # fmt: skip
    for row in rows:
        table.add_row(
            row.template, row.version, str(row.shared), f"{row.own:g}", str(row.most),
            percent(row.shared / (row.shared + row.own)), str(row.states or "-"),
        )  # fmt: skip
    Console(width=WIDE, highlight=False).print(table)
