"""Decisions as plain JSON, from programs that know nothing of Uptier's classes."""

from __future__ import annotations

from typing import Any

import pytest

from config.errors import InputError
from routing.decision import ChoiceOutput, JsonOutput, Privacy, TextOutput
from routing.raw import decision_from
from tests.unit.catalogs import KINDS, catalog

SHOP = catalog(
    kinds=KINDS | {"pick": {"tier": "local_fast", "output": "choice", "labels": ["A", "B"]}}
)
ASKED = {"kind": "pick", "prompt": "Which?", "key": "k"}


def test_without_an_output_it_is_the_kinds_own() -> None:
    assert decision_from(ASKED, SHOP).output == ChoiceOutput(labels=("A", "B"))


@pytest.mark.parametrize(
    ("more", "output"),
    [
        ({"choices": ["X", "Y"]}, ChoiceOutput(labels=("X", "Y"))),
        ({"text": True, "max_tokens": 9}, TextOutput(max_tokens=9)),
        ({"schema": {"type": "object"}}, JsonOutput(json_schema={"type": "object"})),
        ({"output": {"type": "text", "min_chars": 3}}, TextOutput(min_chars=3)),
    ],
)
def test_what_is_asked_for_can_be_said_in_short(more: dict[str, Any], output: Any) -> None:
    assert decision_from(ASKED | more, SHOP).output == output


def test_all_fields_of_a_decision_have_their_names() -> None:
    more = {"preferences": {"privacy": "high"}, "signals": {"novel": True}, "expected": "A"}
    found = decision_from(ASKED | more, SHOP)
    assert found.preferences.privacy is Privacy.HIGH
    assert found.signals.novel
    assert found.expected == "A"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("no object", "must be a JSON object, not str"),
        ([], "must be a JSON object, not list"),
        ({"prompt": "x", "key": "k"}, "kind: must be a string"),
        (ASKED | {"prompt": 4}, "prompt: must be a string"),
        (ASKED | {"prompt": ""}, "prompt: String should have at least 1"),
        (ASKED | {"colour": "red"}, "colour: is no field"),
        (ASKED | {"choices": "A,B"}, "choices: must be a list"),
        (ASKED | {"choices": ["A", "A"]}, "labels must differ"),
        (ASKED | {"choices": [1, 2]}, "choices: every label must be a string"),
        (ASKED | {"text": True, "schema": {}, "choices": ["A", "B"]}, "drop one of them"),
        (ASKED | {"output": {"type": "poem"}}, "output."),
        (ASKED | {"output": {"type": "text"}, "text": True}, "text: output says it already"),
        (ASKED | {"max_tokens": -1}, "max_tokens: must be a whole number"),
        (ASKED | {"signals": {"queue_length": -2}}, "signals.queue_length: Input should be"),
        (ASKED | {"preferences": {"privacy": "some"}}, "preferences.privacy"),
        (ASKED | {"kind": "riddle"}, "'riddle' has no output of its own"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(given: object, says: str) -> None:
    with pytest.raises(InputError) as caught:
        decision_from(given, SHOP)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_message_quotes_a_prompt() -> None:
    with pytest.raises(InputError) as caught:
        decision_from(ASKED | {"prompt": "my password is \0 secret"}, SHOP)
    assert "secret" not in str(caught.value)
