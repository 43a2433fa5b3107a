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
from config.settings import Settings, load_settings
from ledger.outbox import new_id
from ledger.records import StoredVerdict
from ledger.trail import AttemptTrail, Trail, trail
from routing.decision import CacheScope, Decision, Output, Preferences, Privacy, output_for
from routing.policy import plan
from routing.specialists import query_type
from workers.limits import check_fits


def decide(
    prompt: Annotated[str, typer.Option(help="the question")],
    kind: Annotated[
        str | None, typer.Option(help="what sort of question it is; else its words tell")
    ] = None,
    choices: Annotated[str | None, typer.Option(help="labels, separated by commas")] = None,
    schema: Annotated[Path | None, typer.Option(help="file with a JSON schema")] = None,
    text: Annotated[bool, typer.Option(help="ask for free text")] = False,
    private: Annotated[bool, typer.Option(help="never let it leave this machine")] = False,
    force_tier: Annotated[str | None, typer.Option(help="start on this tier")] = None,
    force_lane: Annotated[str | None, typer.Option(help="start on this lane")] = None,
    preset: Annotated[str | None, typer.Option(help="wishes of the profile by name")] = None,
    strategy: Annotated[
        str | None, typer.Option(help="local_first, cost, quality or hybrid")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="of hybrid: cost=2,quality=1 and the like")
    ] = None,
    specialist: Annotated[str | None, typer.Option(help="speciality to ask first")] = None,
    adapter: Annotated[str | None, typer.Option(help="LoRA adapter to answer with")] = None,
    min_quality: Annotated[float | None, typer.Option(help="0 to 1, expected of lanes")] = None,
    max_latency: Annotated[int | None, typer.Option(help="milliseconds, expected of lanes")] = None,
    max_cost: Annotated[float | None, typer.Option(help="dollars, for all paid calls")] = None,
    classify: Annotated[
        bool | None, typer.Option(help="let the small model look at it first")
    ] = None,
    cache: Annotated[bool, typer.Option(help="an earlier answer may serve")] = True,
    own_sample: Annotated[bool, typer.Option(help="share no answer with anyone")] = False,
    seed: Annotated[int, typer.Option(min=0, help="for the wording of texts")] = 0,
    timeout: Annotated[float, typer.Option(min=1, help="seconds to wait")] = 600,
    profile: Annotated[str | None, typer.Option(help="catalog of models, or a .toml file")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print everything as JSON")] = False,
) -> int:
    """Answer one question and show its routing, verdicts, attempts, time and cost."""
    settings = load_settings(profile=profile)
    preferences = _preferences(
        privacy=Privacy.HIGH if private else Privacy.LOW, force_tier=force_tier,
        force_lane=force_lane, preset=preset, strategy=strategy, weights=_weights(weights),
        specialist=specialist, adapter=adapter,
        min_quality=min_quality, max_latency_ms=max_latency,
        max_cost_usd=None if max_cost is None else str(max_cost), classify=classify,
        cache=CacheScope.SHARED if cache else CacheScope.OFF, own_sample=own_sample,
    )  # fmt: skip
    kind = query_type(prompt, settings.catalog) if kind is None else kind
    output = _output(settings.catalog, kind, choices, schema, text)
    decision = _decision(
        kind=kind, prompt=prompt, output=output, key=new_id(), seed=seed, preferences=preferences
    )
    found = _answered(settings, decision, timeout)
    if as_json:
        print_json(json.dumps(found.model_dump(mode="json"), indent=2))
    else:
        _print(found)
    return 0 if found.answer else 1


def _answered(settings: Settings, decision: Decision, timeout_s: float) -> Trail:
    """Have a decision answered, and tell how; what it cannot be is said before anything starts."""
    chosen = plan(decision, settings.catalog, settings.absent_lanes)
    check_fits(settings, chosen, decision)
    with session(settings, mode="decide", seed=decision.seed) as live:
        try:
            settled = live.client.gather([decision], timeout_s=timeout_s)[0]
        except TimeoutError as error:
            raise InputError(
                f"no answer within {timeout_s:g} s: {error}; raise --timeout"
            ) from None
        return trail(live.engine, settled.id)


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


def _preferences(**values: Any) -> Preferences:
    try:
        return Preferences(**values)
    except ValidationError as error:
        raise InputError(one_line(error, "preferences")) from None


def _weights(given: str | None) -> dict[str, str] | None:
    if given is None:
        return None
    pairs = [part.partition("=") for part in given.split(",")]
    if not all(name.strip() and value.strip() for name, _, value in pairs):
        raise InputError(f"--weights {given!r} needs NAME=NUMBER pairs, separated by commas")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _decision(**values: Any) -> Decision:
    try:
        return Decision(**values)
    except ValidationError as error:
        raise InputError(one_line(error, "decision")) from None


def _print(found: Trail) -> None:
    out.print(f"Answer    {found.answer or '(none)'}")
    sure = "" if found.p_answer is None else f", {percent(found.p_answer)} of the labels' weight"
    out.print(f"Status    {found.status}: {found.reason}{sure}")
    out.print("Routing")
    for hop in found.plan.hops:
        out.print(f"  {hop.lane:<12} {hop.reason}")
    for note in found.plan.notes:
        out.print(f"  note         {note}")
    out.print("Attempts" if found.attempts else "Attempts  none: answered from the cache")
    for attempt in found.attempts:
        _print_attempt(attempt)
    out.print(f"Cost      {usd(found.cost_usd)} in {milliseconds(found.total_ms)} all told")
    out.print(f"Ledger    decision {found.id}")


def _print_attempt(attempt: AttemptTrail) -> None:
    spent = f"{milliseconds(attempt.inference_ms)}, waited {milliseconds(attempt.waiting_ms)}"
    out.print(
        f"  {attempt.lane} #{attempt.number} {attempt.model}: {attempt.outcome} in {spent}, "
        f"{attempt.tokens_in} + {attempt.tokens_out} tokens, {usd(attempt.cost_usd)}"
    )
    out.print(f"    said    {attempt.raw or attempt.error}")
    if attempt.verdict is not None:
        _print_verdict(attempt.verdict)


def _print_verdict(verdict: StoredVerdict) -> None:
    word = "passed" if verdict.passed else "failed"
    critique = "not asked" if verdict.critique is None else f"{verdict.critique:.2f}"
    out.print(
        f"    verdict {word} with {verdict.score:.3f}: format {verdict.format:.2f}, completeness "
        f"{verdict.completeness:.2f}, coherence {verdict.coherence:.2f}, critique {critique}"
    )
    for issue in (*verdict.vetoes, *verdict.issues):
        out.print(f"    because {issue}")
