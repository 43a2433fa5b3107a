"""Finding corrections: what is fitted, on what it is judged, and what is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from sqlalchemy import Engine

from cli.main import run
from config.settings import load_settings
from ledger import lifecycle
from ledger.calibrations import Labelled, Subject, in_force
from ledger.database import migrate, open_ledger
from ledger.records import Planned, Tried
from ledger.runs import start_run
from producers.prompts import load_template
from routing.confidence import Correction, calibrated
from routing.decision import ChoiceOutput, Complexity, Decision, Hop, Plan
from workers.corrections import ENOUGH, Form, find, score, split
from workers.label_paths import SCORING

LABELS = ("a", "b", "c")
KEY = Subject("kind", "m", "f", "kind@1")
FORM = Form("kind", "kind@1", "Choose.", ("", "N/A", "[MASK]"), LABELS)
BIAS = (1.5, 0.0, -1.5)
Captured = pytest.CaptureFixture[str]


def history(count: int, bias: tuple[float, ...] = BIAS, heat: float = 1.0) -> list[Labelled]:
    """A model that leans by ``bias`` (nats) and is ``heat`` times as sure as it should be."""
    dice = random.Random(count)
    found = []
    for number in range(count):
        z = tuple(dice.gauss(0, 2) for _ in LABELS)
        [right] = dice.choices(LABELS, calibrated(z, (), 0, 1))
        told = [heat * x + b for x, b in zip(z, bias, strict=True)]
        found.append(Labelled(f"q{number}", LABELS, calibrated(told, (), 0, 1), right))
    return found


def test_a_leaning_model_is_set_upright() -> None:
    found = find(KEY, FORM, history(600, bias=(4.5, 0.0, -4.5), heat=3), BIAS)
    assert found.before is not None
    assert found.after is not None
    assert found.stored
    assert found.after.accuracy > found.before.accuracy + 0.05
    assert found.after.ece < found.before.ece / 2
    assert found.correction.temperature == pytest.approx(3, rel=0.3)
    assert found.correction.span == pytest.approx(9, rel=0.3)
    assert (found.samples, found.held_out) == (600, 300)


def test_batches_show_the_bias_where_content_free_inputs_mislead() -> None:
    found = find(KEY, FORM, history(600), (-2.0, 0.0, 2.0))
    assert (found.method, found.stored) == ("batch", True)


def test_with_little_history_the_temperature_stays_and_the_note_says_so() -> None:
    found = find(KEY, FORM, history(ENOUGH - 1), BIAS)
    assert (found.method, found.correction.temperature, found.stored) == ("contextual", 1.0, True)
    assert found.held_out == ENOUGH - 1
    assert "T = 1: fitting needs 50 labelled samples" in found.note


def test_without_history_nothing_is_stored() -> None:
    found = find(KEY, FORM, history(9), BIAS)
    assert not found.stored
    assert (found.before, found.after) == (None, None)
    assert found.note == "not stored: 9 labelled samples do not show whether it helps"


def test_what_lowers_held_out_accuracy_is_refused() -> None:
    found = find(KEY, FORM, history(40, bias=(0.0, 0.0, 0.0)), (6.0, 0.0, -6.0))
    assert not found.stored
    assert "not stored: it lowers the accuracy on held-out samples" in found.note


def test_what_makes_right_answers_less_likely_is_refused() -> None:
    sure = [Labelled(f"q{n}", LABELS, (0.98, 0.01, 0.01), "a") for n in range(20)]
    found = find(KEY, FORM, sure, (1.0, 0.0, -1.0))
    assert not found.stored
    assert "less likely" in found.note


def test_a_kind_whose_labels_vary_gets_a_temperature_alone() -> None:
    samples = [
        Labelled(s.prompt, tuple(f"{label}{n}" for label in s.labels), s.probabilities,
                 f"{s.expected}{n}")
        for n, s in enumerate(history(200, bias=(0.0, 0.0, 0.0), heat=3))
    ]  # fmt: skip
    found = find(KEY, Form("kind", "kind@1", "", (), ()), samples, ())
    assert (found.method, found.correction.bias, found.stored) == ("none", {}, True)
    assert found.correction.temperature == pytest.approx(3, rel=0.5)


def test_samples_of_other_labels_do_not_count() -> None:
    other = [Labelled(f"x{n}", ("x", "y"), (0.5, 0.5), "x") for n in range(100)]
    assert find(KEY, FORM, [*history(60), *other], BIAS).samples == 60


def test_no_question_is_in_both_halves_and_the_split_is_always_the_same() -> None:
    samples = [*history(30), *history(30), *history(17)]
    train, test = split(samples)
    assert not {s.prompt for s in train} & {s.prompt for s in test}
    assert abs(len(train) - len(test)) <= 3
    assert split(list(samples)) == (train, test)


def test_a_score_by_hand() -> None:
    samples = [Labelled("q", ("a", "b"), (0.8, 0.2), right) for right in ("a", "b")]
    found = score(samples, Correction())
    assert found.accuracy == 0.5
    assert found.ece == pytest.approx(0.3)
    assert found.loss == pytest.approx(0.916, abs=1e-3)


PROFILE = """
include = ["eddt"]
[tiers.local_fast]
rank = 1
[tiers.local_quality]
rank = 2
[tiers.cloud]
rank = 3
[lanes.tier1]
tier = "local_fast"
model = "small"
[models.small]
backend = "scripted"
[[models.small.script.lines]]
answer = "reject"
p = 0.6
"""
FINGERPRINT = f"scripted:small~{SCORING}"


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """A ledger with a history of accept_reject: what the model leans to hides what it knows."""
    path = tmp_path / "scripted.toml"
    path.write_text(PROFILE)
    monkeypatch.setenv("UPTIER_PROFILE", str(path))
    monkeypatch.setenv("UPTIER_DATA_DIR", str(tmp_path))
    settings = load_settings()
    migrate(settings)
    engine = open_ledger(settings)
    template = load_template("accept_reject")
    run_id = start_run(engine, mode="test", profile="x", now=0).id
    plan = Plan(hops=(Hop(lane="tier1", reason="x"),), complexity=Complexity.SIMPLE)
    asked = [
        Planned(
            Decision(kind="accept_reject", prompt=f"q{n}", key=str(n), template=template.id,
                     output=ChoiceOutput(labels=("accept", "reject")),
                     expected="accept" if n % 2 else "reject"),
            plan,
        )
        for n in range(60)
    ]  # fmt: skip
    ids = lifecycle.submit(engine, run_id, asked, now=1).ids
    lifecycle.claim(engine, "tier1", ids, token="t", now=2, lease_us=1000)
    tried = [
        Tried(i, "small", FINGERPRINT, raw="reject", label="reject",
              probabilities=(0.45, 0.55) if n % 2 else (0.3, 0.7))
        for n, i in enumerate(ids)
    ]  # fmt: skip
    lifecycle.record(engine, "t", tried, now=3)
    return engine


def test_the_command_stores_what_helps_and_takes_it_back(ledger: Engine, capsys: Captured) -> None:
    assert run(["models", "calibrate", "--kind", "accept_reject", "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)
    assert (found["stored"], found["samples"], found["held_out"]) == (True, 60, 30)
    assert (found["before"]["accuracy"], found["after"]["accuracy"]) == (0.5, 1.0)
    template = load_template("accept_reject").id
    [(subject, correction)] = in_force(ledger, "small", FINGERPRINT).items()
    assert subject == Subject("accept_reject", "small", FINGERPRINT, template)
    assert correction.bias["reject"] > correction.bias["accept"]
    assert run(["models", "calibrate"]) == 0
    shown = capsys.readouterr().out
    assert "accept_reject" in shown
    assert "0 labelled samples do not show whether it helps" in shown
    assert run(["models", "calibrate", "--reset"]) == 0
    assert "small: 2 corrections taken back" in capsys.readouterr().out
    assert in_force(ledger, "small", FINGERPRINT) == {}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "huge"], "--model 'huge' serves no free lane"),
        (["--kind", "message_composition"], "'message_composition' is no choice by a template"),
        (["--run", "nowhere"], "--run 'nowhere' is not in the ledger"),
    ],
)
def test_what_cannot_be_calibrated_is_one_line(
    ledger: Engine, capsys: Captured, arguments: list[str], said: str
) -> None:
    assert run(["models", "calibrate", *arguments]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said in line
