"""How answers are drawn: the lane's way, the decision's wishes, and no bound beyond the model."""

from __future__ import annotations

from typing import Any

import pytest

from config.catalog import Sampling
from routing.decision import ChoiceOutput, JsonOutput, Output, TextOutput
from tests.unit.catalogs import MODELS, TIERS, catalog, decision
from workers.questions import MARKUP_TOKENS, Questions

OWN: dict[str, Any] = {"max_tokens": 50, "temperature": 0.1, "top_p": 0.9, "stops": ["\n"]}
SHOP = catalog(
    tiers=TIERS | {"local_fast": {"rank": 1, "sampling": OWN}},
    models=MODELS | {"small": {"backend": "scripted", "context": 1000}},
)


def drawn(output: Output, **more: Any) -> Sampling:
    questions = Questions(SHOP, "tier1", backend=None, fingerprint="", clock=lambda: 0)  # type: ignore[arg-type]
    return questions.sampling(decision(output=output, **more))


def test_what_nobody_wishes_is_the_lanes_own() -> None:
    for output in (TextOutput(), JsonOutput(json_schema={}), ChoiceOutput(labels=("A", "B"))):
        assert drawn(output) == Sampling(**OWN)


def test_wishes_of_the_output_come_first() -> None:
    output = TextOutput(max_tokens=9, temperature=0, top_p=0.5, stops=())
    assert drawn(output) == Sampling(max_tokens=9, temperature=0, top_p=0.5, stops=())
    found = drawn(JsonOutput(json_schema={}, temperature=1.5))
    assert (found.temperature, found.top_p) == (1.5, 0.9)


@pytest.mark.parametrize(
    ("asked", "chars", "found"),
    [
        (100, 300, 100),
        (5000, 300, 1000 - 100 - MARKUP_TOKENS),
        (5000, 3000, 5000),  # no room at all: the backend says so, it counts the tokens
    ],
)
def test_a_bound_that_does_not_fit_is_what_is_left(asked: int, chars: int, found: int) -> None:
    assert drawn(TextOutput(max_tokens=asked), prompt="x" * chars).max_tokens == found
