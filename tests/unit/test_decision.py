"""What a decision may hold: everything that travels or is kept has a bound."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from pydantic import ValidationError

from config.catalog import Kind, Sampling
from config.load import one_line
from routing.decision import ChoiceOutput, Decision, JsonOutput, TextOutput

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


@pytest.mark.parametrize("build", [Sampling, TextOutput, partial(Kind, tier="tier1")])
def test_an_empty_stop_is_refused_in_one_line(build: Callable[..., object]) -> None:
    assert build(stops=("\n",))
    with pytest.raises(ValidationError) as raised:
        build(stops=("END", ""))
    line = one_line(raised.value, "output")
    assert "stops.1" in line
    assert "a stop must not be empty" in line
    assert "\n" not in line


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
