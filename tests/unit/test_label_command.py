"""``uptier label``: a person's word, or one line on why it cannot be taken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.main import run
from ledger.labels import labelled
from routing.decision import JsonOutput, TextOutput
from tests.unit.audited_house import PROFILE, House


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test")
    monkeypatch.setenv("UPTIER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("UPTIER_PROFILE", str(PROFILE))
    opened = House(tmp_path)
    yield opened
    opened.engine.dispose()


@pytest.mark.parametrize(
    ("word", "right"),
    [
        (["--correct"], [("tier1", False), ("tier2", True)]),
        (["--wrong"], [("tier2", False)]),
        (["--answer", "A"], [("tier1", True), ("tier2", False)]),
    ],
)
def test_a_word_labels_the_attempts_that_it_tells_of(
    house: House, word: list[str], right: list[tuple[str, bool]]
) -> None:
    house.settle(house.ask(key="mine"), ("A", 0.51), ("B", 0.9))
    assert run(["label", house.run_id, "mine", *word]) == 0
    assert [(o.lane, o.correct) for o in labelled(house.engine)] == right
    assert {o.propensity for o in labelled(house.engine)} == {None}


def test_a_word_takes_back_what_rests_on_the_answer_that_it_calls_wrong(house: House) -> None:
    house.settle(house.ask(key="mine"), ("A", 0.51), ("B", 0.52), ("B", None))
    assert house.labels() == [("tier1", False, "top", 1.0), ("tier2", True, "top", 1.0)]
    assert run(["label", house.run_id, "mine", "--wrong"]) == 0
    assert house.labels() == [("tier2", False, "person", 1.0), ("tier3", False, "person", None)]
    house.settle(house.ask(key="yours"), ("A", 0.51), ("B", 0.9))
    house.settle(house.audits()[-1]["id"], ("A", None))
    assert run(["label", house.run_id, "yours", "--correct"]) == 0
    assert [(o.lane, o.correct, o.propensity) for o in labelled(house.engine)][2:] == [
        ("tier1", False, 1.0), ("tier2", True, 1.0),
    ]  # fmt: skip
    assert {source for _, _, source, _ in house.labels()} == {"person"}


def test_a_later_word_takes_back_all_of_an_earlier_one(house: House) -> None:
    house.settle(house.ask("unaudited", key="mine"), ("A", 0.51), ("B", 0.9))
    assert run(["label", house.run_id, "mine", "--correct"]) == 0
    assert len(house.labels()) == 2
    assert run(["label", house.run_id, "mine", "--wrong"]) == 0
    assert house.labels() == [("tier2", False, "person", None)]


@pytest.mark.parametrize(
    ("output", "said", "word", "right"),
    [
        (TextOutput(), "It is done as agreed.", ["--correct"], True),
        (TextOutput(), "It is done as agreed.", ["--wrong"], False),
        (JsonOutput(json_schema={}), '{"a": 1}', ["--answer", '{"a":1.0}'], True),
    ],
)
def test_text_and_json_are_labelled_too(
    house: House, output: TextOutput | JsonOutput, said: str, word: list[str], right: bool
) -> None:
    one = house.ask("unaudited", output=output)
    house.settle(one, (said, None))
    assert run(["label", house.run_id, one, *word]) == 0
    assert [o.correct for o in labelled(house.engine)] == [right]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{run}", "mine"], "give one"),
        (["{run}", "mine", "--correct", "--wrong"], "give one"),
        (["nowhere", "mine", "--correct"], "run 'nowhere' is not in the ledger"),
        (["{run}", "yours", "--correct"], "no decision with the key or id 'yours'"),
        (["{run}", "open", "--correct"], "is not settled yet"),
        (["{run}", "mine", "--answer", "C"], "choose one of A, B"),
        (["{run}", "json", "--answer", "{"], "is no JSON"),
        (["{run}", "text", "--answer", "better"], "text is labelled with --correct or --wrong"),
        (["{run}", "none", "--correct"], "has no answer"),
    ],
)
def test_a_word_that_cannot_be_taken(
    house: House, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    house.settle(house.ask(key="mine"), ("A", 0.9))
    house.ask(key="open")
    house.settle(house.ask("unaudited", key="json", output=JsonOutput(json_schema={})),
                 ("{}", None))  # fmt: skip
    house.settle(house.ask("unaudited", key="text", output=TextOutput()), ("It is done.", None))
    house.settle(house.ask("unaudited", key="none"), ("?", None), ("?", None), ("?", None))
    filled = [one.format(run=house.run_id) if one == "{run}" else one for one in arguments]
    assert run(["label", *filled]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert says in line
    assert labelled(house.engine) == []
