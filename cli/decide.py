"""``uptier decide``: one question, its answer, and how it came about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from cli.output import milliseconds, out, percent, print_json, usd
from cli.session import session
from config.errors import InputError
from config.load import one_line
from config.settings import load_settings
from ledger.outbox import new_id
from ledger.trail import Trail, trail
from routing.decision import CacheScope, Decision, Output, Plan, Preferences, Privacy, output_for
from routing.policy import plan
from workers.limits import check_fits


def decide(
    prompt: Annotated[str, typer.Option(help="the question")],
    kind: Annotated[str, typer.Option(help="what sort of question it is")] = "general",
    choices: Annotated[str | None, typer.Option(help="labels, separated by commas")] = None,
    schema: Annotated[Path | None, typer.Option(help="file with a JSON schema")] = None,
    text: Annotated[bool, typer.Option(help="ask for free text")] = False,
    private: Annotated[bool, typer.Option(help="never let it leave this machine")] = False,
    force_tier: Annotated[str | None, typer.Option(help="start on this tier")] = None,
    cache: Annotated[bool, typer.Option(help="an earlier answer may serve")] = True,
    seed: Annotated[int, typer.Option(min=0, help="for the wording of texts")] = 0,
    timeout: Annotated[float, typer.Option(min=1, help="seconds to wait")] = 600,
    profile: Annotated[str | None, typer.Option(help="catalog of models, or a .toml file")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print everything as JSON")] = False,
) -> int:
    """Answer one question and show its routing, verdicts, attempts, time and cost."""
    settings = load_settings(profile=profile)
    preferences = Preferences(
        privacy=Privacy.HIGH if private else Privacy.LOW,
        force_tier=force_tier,
        cache=CacheScope.SHARED if cache else CacheScope.OFF,
    )
    output = _output(settings.catalog, kind, choices, schema, text)
    decision = _decision(
        kind=kind, prompt=prompt, output=output, key=new_id(), seed=seed, preferences=preferences
    )
    chosen = plan(decision, settings.catalog, settings.absent_lanes)
    check_fits(settings, chosen, decision)
    with session(settings, mode="decide", seed=seed) as live:
        try:
            settled = live.client.gather([decision], timeout_s=timeout)[0]
        except TimeoutError as error:
            raise InputError(f"no answer within {timeout:g} s: {error}; raise --timeout") from None
        found = trail(live.engine, settled.id)
    if as_json:
        print_json(json.dumps(found.model_dump(mode="json"), indent=2))
    else:
        _print(found, chosen)
    return 0 if settled.answer else 1


def _output(
    catalog: Any, kind: str, choices: str | None, schema: Path | None, text: bool
) -> Output:
    if sum((choices is not None, schema is not None, text)) > 1:
        raise InputError("--choices, --schema and --text exclude one another: give one of them")
    labels = None
    if choices is not None:
        labels = tuple(label.strip() for label in choices.split(","))
        if len(labels) < 2 or not all(labels):
            raise InputError(f"--choices {choices!r} needs two or more labels, separated by commas")
    return output_for(catalog, kind, labels=labels, json_schema=_read_schema(schema), text=text)


def _read_schema(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"--schema {path}: {error}; give a file with a JSON schema") from None
    if not isinstance(schema, dict):
        raise InputError(f"--schema {path} must hold a JSON object")
    return schema


def _decision(**values: Any) -> Decision:
    try:
        return Decision(**values)
    except ValidationError as error:
        raise InputError(one_line(error, "decision")) from None


def _print(found: Trail, chosen: Plan) -> None:
    out.print(f"Answer    {found.answer or '(none)'}")
    sure = "" if found.p_answer is None else f", {percent(found.p_answer)} of the labels' weight"
    out.print(f"Status    {found.status}: {found.reason}{sure}")
    out.print("Routing")
    for hop in chosen.hops:
        out.print(f"  {hop.lane:<12} {hop.reason}")
    for note in chosen.notes:
        out.print(f"  note         {note}")
    out.print("Attempts" if found.attempts else "Attempts  none: answered from the cache")
    for attempt in found.attempts:
        spent = f"{milliseconds(attempt.inference_ms)}, waited {milliseconds(attempt.waiting_ms)}"
        out.print(
            f"  {attempt.lane} #{attempt.number} {attempt.model}: {attempt.outcome} in {spent}, "
            f"{attempt.tokens_in} + {attempt.tokens_out} tokens, {usd(attempt.cost_usd)}"
        )
        out.print(f"    said    {attempt.raw or attempt.error}")
        if attempt.verdict is not None:
            v = attempt.verdict
            word = "passed" if v.passed else "failed"
            critique = "not asked" if v.critique is None else f"{v.critique:.2f}"
            out.print(
                f"    verdict {word} with {v.score:.3f}: format {v.format:.2f}, completeness "
                f"{v.completeness:.2f}, coherence {v.coherence:.2f}, critique {critique}"
            )
            for issue in (*v.vetoes, *v.issues):
                out.print(f"    because {issue}")
    out.print(f"Cost      {usd(found.cost_usd)} in {milliseconds(found.total_ms)} all told")
    out.print(f"Ledger    decision {found.id}")
