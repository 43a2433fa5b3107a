"""``uptier label``: a person's word on whether a decision's answer was right."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from sqlalchemy import Engine

from config.errors import InputError
from config.settings import load_settings
from ledger.clock import now
from ledger.database import migrate, open_ledger
from ledger.labels import by_person, find_decision
from ledger.records import output_of
from ledger.runs import find_run
from routing.decision import ChoiceOutput, JsonOutput, State


def label(
    run: Annotated[str, typer.Argument(help="id of a run")],
    key: Annotated[str, typer.Argument(help="the decision's key, or its id")],
    correct: Annotated[bool, typer.Option("--correct", help="its answer is right")] = False,
    wrong: Annotated[bool, typer.Option("--wrong", help="its answer is wrong")] = False,
    answer: Annotated[str | None, typer.Option(help="this would have been right")] = None,
) -> None:
    """Say whether an answer was right; certificates and the history of lanes learn from it."""
    if correct + wrong + (answer is not None) != 1:
        raise InputError("uptier label needs one of --correct, --wrong and --answer X: give one")
    settings = load_settings()
    migrate(settings)
    engine = open_ledger(settings)
    try:
        decision = _decision(engine, run, key)
        truth = _given(decision) if answer is None else _possible(decision, answer)
        count = by_person(engine, decision, truth, right=not wrong, now=now())
    finally:
        engine.dispose()
    if count == 0:
        raise InputError(
            f"no attempt of decision {key!r} can be told right or wrong by that: text is labelled "
            "with --correct or --wrong, and answers of the cache with the decision they came from"
        )
    typer.echo(f"labelled {count} {'attempt' if count == 1 else 'attempts'}")


def _decision(engine: Engine, run: str, key: str) -> Any:
    if find_run(engine, run) is None:
        raise InputError(f"run {run!r} is not in the ledger: check the id")
    found = find_decision(engine, run, key)
    if found is None:
        raise InputError(f"run {run!r} has no decision with the key or id {key!r}: check it")
    if found.state != State.SETTLED.value:
        raise InputError(f"decision {key!r} is not settled yet: wait for it, or cancel it")
    return found


def _given(decision: Any) -> str:
    if not decision.answer:
        raise InputError(
            f"decision {decision.key!r} has no answer that could be right or wrong: say with "
            "--answer what would have been right"
        )
    answer: str = decision.answer
    return answer


def _possible(decision: Any, answer: str) -> str:
    output = output_of(decision.output)
    if isinstance(output, ChoiceOutput) and answer not in output.labels:
        raise InputError(
            f"--answer {answer!r} is none of the decision's labels: choose one of "
            f"{', '.join(output.labels)}"
        )
    if isinstance(output, JsonOutput):
        try:
            json.loads(answer)
        except ValueError as error:
            raise InputError(f"--answer {answer[:80]!r} is no JSON ({error}): correct it") from None
    return answer
