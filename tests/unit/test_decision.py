"""What a decision may hold: everything that travels or is kept has a bound."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from config.catalog import Kind, Sampling
from config.load import one_line
from ledger import lifecycle
from ledger.runs import start_run
from routing.decision import (
    MOST,
    MOST_SECONDS,
    ChoiceOutput,
    Decision,
    JsonOutput,
    Preferences,
    Signals,
    TextOutput,
)
from tests.unit.ledgers import claim_one, fresh, planned

AB = ChoiceOutput(labels=("A", "B"))


@pytest.mark.parametrize(
    "values",
    [
        {"prompt": "x" * 200_001},
        {"system": "x" * 200_001},
        {"key": "k" * 201},
        {"agent_id": "a" * 201},
        {"template": "t" * 101},
        {"kind": "k" * 65},
        {"fallback": "f" * 200_001},
        {"expected": "e" * 200_001},
    ],
)
def test_a_field_that_is_too_long_is_refused(values: dict[str, Any]) -> None:
    given = {"kind": "question", "prompt": "?", "output": AB, "key": "k"} | values
    with pytest.raises(ValidationError, match="at most"):
        Decision(**given)


@pytest.mark.parametrize(
    "values",
    [
        {"seed": 2**63},
        {"seed": -(2**63) - 1},
        {"day": 2**31},
        {"deadline_s": 1e14},
        {"deadline_s": math.inf},
        {"signals": {"deadline_days": math.inf}},
        {"signals": {"deadline_days": math.nan}},
        {"signals": {"estimated_tokens": 10**400}},
        {"signals": {"queue_length": 10**400}},
        {"signals": {"dependencies": 10**400}},
        {"preferences": {"max_cost_usd": "1e999"}},
        {"preferences": {"max_latency_ms": 10**400}},
        {"preferences": {"payer": {"name": "x", "budget_usd": "1e30"}}},
        {"output": {"type": "text", "max_tokens": 10**30}},
        {"output": {"type": "text", "min_chars": 10**30}},
        {"output": {"type": "json", "json_schema": {}, "max_tokens": 10**30}},
    ],
)
def test_a_number_that_no_ledger_can_keep_is_refused(values: dict[str, Any]) -> None:
    given = {"kind": "question", "prompt": "?", "output": AB, "key": "k"} | values
    with pytest.raises(ValidationError, match=r"less than|greater than|finite"):
        Decision(**given)


def test_the_largest_numbers_come_back_from_the_ledger_as_they_were(tmp_path: Path) -> None:
    engine = fresh(tmp_path)
    given = planned(
        "k", "tier1", seed=2**63 - 1, day=2**31 - 1, deadline_s=MOST_SECONDS,
        signals=Signals(deadline_days=1e308, queue_length=MOST, estimated_tokens=MOST),
        preferences=Preferences(max_cost_usd=Decimal(10**12)),
    )  # fmt: skip
    run = start_run(engine, mode="test", profile="p", now=1)
    [found] = lifecycle.submit(engine, run.id, [given], 2 * 10**15).ids
    kept = claim_one(engine, found, "t", 2 * 10**15, "tier1").decision
    assert (kept.seed, kept.day, kept.signals, kept.preferences) == (
        given.decision.seed, given.decision.day, given.decision.signals, given.decision.preferences,
    )  # fmt: skip
    engine.dispose()


@pytest.mark.parametrize("build", [Sampling, TextOutput, partial(Kind, tier="tier1")])
def test_an_empty_stop_is_refused_in_one_line(build: Callable[..., object]) -> None:
    assert build(stops=("\n",))
    with pytest.raises(ValidationError) as raised:
        build(stops=("END", ""))
    line = one_line(raised.value, "output")
    assert "stops.1" in line
    assert "a stop must not be empty" in line
    assert "\n" not in line


def test_a_label_that_no_database_can_keep_is_refused() -> None:
    with pytest.raises(ValidationError, match="NUL"):
        ChoiceOutput(labels=("A\0", "B"))


def test_outputs_are_bounded() -> None:
    for build in (
        lambda: ChoiceOutput(labels=("A", "B" * 501)),
        lambda: ChoiceOutput(labels=tuple(map(str, range(201)))),
        lambda: TextOutput(stops=("s" * 201,)),
        lambda: TextOutput(stops=tuple(map(str, range(17)))),
        lambda: JsonOutput(json_schema={"enum": ["x" * 100_000]}),
    ):
        with pytest.raises(ValidationError, match="at most"):
            build()
