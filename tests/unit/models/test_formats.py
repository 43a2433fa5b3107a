"""The CPU format that is chosen and served; nothing of llama.cpp is run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from config.errors import ConfigurationError, WeightsError
from config.settings import Settings
from tests.unit.models.toy import SHA, WHOLE
from workers.choices import ORIGINAL, Candidate
from workers.faithful import candidate, choose, faithfulness
from workers.isolated import MeasureError, MeasureTimeout, in_child
from workers.measure import Measurement
from workers.models import list_models, model_fingerprint, weights_path
from workers.prepare import Prepared, Tools, prepare


def measured(prefill: float, decode: float, tilt: float = 0.0, **extra: Any) -> Measurement:
    """A measurement whose predictions differ from the original's by ``tilt``."""
    logits = np.linspace(0, 4, 20 * 8, dtype=np.float32).reshape(20, 8)
    logits[:, 0] += tilt
    rows = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    given: dict[str, Any] = {"parameters": 100, "format": "Q4_1", **extra}
    return Measurement(prefill=prefill, decode=decode, log_probs=rows, **given)


class FakeTools:
    """Counts what is asked of it; a format's speed and truth are told beforehand."""

    def __init__(self, original: Measurement, **formats: Measurement | Exception) -> None:
        self.original = original
        self.formats = formats
        self.converted: list[str] = []
        self.gpu = False

    def quantize(self, source: Path, target: Path, name: str) -> None:
        self.converted.append(name)
        target.write_bytes(name.encode())

    def measure(self, path: Path) -> Measurement:
        if path.read_bytes() == WHOLE:
            return self.original
        found = self.formats[path.read_bytes().decode()]
        if isinstance(found, BaseException):
            raise found
        return found

    def run(self, settings: Settings, **extra: Any) -> Prepared:
        tools = Tools(self.quantize, self.measure, lambda: self.gpu)
        return prepare(settings, tools=tools, **extra)[0]


def test_the_fastest_faithful_format_is_chosen_served_and_remembered(placed: Settings) -> None:
    tools = FakeTools(measured(400, 200), BF16=measured(1600, 400), Q8_0=measured(900, 300))
    assert model_fingerprint(placed, "toy") == f"{SHA}:original"
    first = tools.run(placed)
    assert (first.choice.format, first.measured) == ("BF16", True)
    assert weights_path(placed, "toy").name == "toy.BF16.gguf"
    assert model_fingerprint(placed, "toy") == f"{SHA}:BF16"
    assert list_models(placed)[0].format == "BF16"
    assert [p.name for p in weights_path(placed, "toy").parent.glob("*.gguf")] == ["toy.BF16.gguf"]
    second = tools.run(placed)
    assert (second.choice, second.measured) == (first.choice, False)
    assert tools.converted == ["BF16", "Q8_0"]


def test_a_fast_format_that_changes_the_answers_is_not_chosen(placed: Settings) -> None:
    tools = FakeTools(
        measured(400, 200), BF16=measured(500, 250), Q8_0=measured(9000, 9000, tilt=9)
    )
    choice = tools.run(placed).choice
    assert choice.format == "BF16"
    assert [c.faithful for c in choice.candidates] == [True, True, False]


def test_a_format_that_gains_too_little_is_not_kept(placed: Settings) -> None:
    tools = FakeTools(measured(400, 200), BF16=measured(410, 205), Q8_0=measured(100, 100))
    assert tools.run(placed).choice.format == ORIGINAL
    assert weights_path(placed, "toy") == placed.models_dir / "toy.gguf"
    assert not list((placed.models_dir / "prepared").glob("*.gguf"))
    assert not tools.run(placed).measured


def test_formats_are_measured_anew_when_asked_or_when_the_catalog_has_others(
    placed: Settings, profile: Any
) -> None:
    tools = FakeTools(measured(400, 200), BF16=measured(800, 400), Q8_0=measured(1600, 800))
    tools.run(placed)
    assert tools.run(placed, again=True).measured
    fewer = profile(formats=("BF16",))
    found = tools.run(fewer)
    assert (found.measured, found.choice.format) == (True, "BF16")


def test_a_format_that_the_catalog_drops_is_neither_served_nor_kept(
    placed: Settings, profile: Any
) -> None:
    tools = FakeTools(measured(400, 200), BF16=measured(1600, 800), Q8_0=measured(800, 400))
    tools.run(placed)
    path = weights_path(placed, "toy")
    none = profile(formats=())
    assert model_fingerprint(none, "toy") == f"{SHA}:original"
    tools.converted.clear()
    assert tools.run(none).choice.format == ORIGINAL
    assert tools.converted == []
    assert not path.exists()


def test_a_choice_of_another_machine_is_not_taken_over(
    placed: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = FakeTools(measured(400, 200), BF16=measured(800, 400), Q8_0=measured(90, 90))
    tools.run(placed)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("workers.choices.machine_key", lambda: "another CPU")
        assert weights_path(placed, "toy") == placed.models_dir / "toy.gguf"
        other = FakeTools(measured(400, 200), BF16=measured(90, 90), Q8_0=measured(800, 400))
        assert other.run(placed).choice.format == "Q8_0"
    # What the other machine did not want is still this machine's choice.
    assert weights_path(placed, "toy").name == "toy.BF16.gguf"


def test_a_prepared_file_that_is_gone_or_damaged_is_made_again(placed: Settings) -> None:
    tools = FakeTools(measured(400, 200), BF16=measured(800, 400), Q8_0=measured(90, 90))
    tools.run(placed)
    path = weights_path(placed, "toy")
    path.write_bytes(b"damaged")
    assert weights_path(placed, "toy") == placed.models_dir / "toy.gguf"
    assert model_fingerprint(placed, "toy") == f"{SHA}:original"
    assert tools.run(placed).measured
    path.unlink()
    assert tools.run(placed).measured
    assert weights_path(placed, "toy") == path


def test_a_format_that_fails_or_takes_too_long_is_passed_over(placed: Settings) -> None:
    tools = FakeTools(
        measured(400, 200), BF16=MeasureError("refused"), Q8_0=MeasureTimeout("took longer")
    )
    choice = tools.run(placed).choice
    assert choice.format == ORIGINAL
    assert [c.fault for c in choice.candidates] == [None, "refused", "took longer"]
    assert not list((placed.models_dir / "prepared").glob("*.tmp"))


def test_large_models_are_not_blown_up_to_full_precision(placed: Settings) -> None:
    original = measured(400, 200, parameters=1_500_000_000, format="Q8_0")
    tools = FakeTools(original)
    assert [c.fault for c in tools.run(placed).choice.candidates] == [
        None,
        "too large for a model of this size",
        "is the format it comes in",
    ]
    assert tools.converted == []


def test_a_machine_too_busy_to_measure_serves_the_original_and_remembers_nothing(
    placed: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = FakeTools(measured(400, 200), BF16=measured(800, 400), Q8_0=measured(90, 90))
    with monkeypatch.context() as busy:
        busy.setattr(tools, "measure", lambda path: in_child(0.0, time_passes))
        assert tools.run(placed).choice.format == ORIGINAL
    assert tools.run(placed).measured
    tools.original = measured(400, 200, share=0.5)
    assert tools.run(placed, again=True).disturbed


def test_a_model_on_a_gpu_is_served_as_it_comes(placed: Settings, profile: Any) -> None:
    tools = FakeTools(measured(400, 200), BF16=measured(800, 400), Q8_0=measured(90, 90))
    tools.gpu = True
    assert tools.run(placed).choice.format == ORIGINAL
    assert tools.converted == []
    on_cpu = profile(model_extra="gpu_layers = 0", formats=("BF16",))
    assert tools.run(on_cpu).choice.format == "BF16"


def test_a_format_name_cannot_lead_out_of_the_directory(placed: Settings, profile: Any) -> None:
    with pytest.raises(ConfigurationError, match="no format of llama.cpp"):
        FakeTools(measured(1, 1)).run(profile(formats=("../../x",)))


def test_weights_that_llama_cpp_cannot_run_are_named(placed: Settings) -> None:
    tools = FakeTools(measured(1, 1))
    tools.measure = lambda path: in_child(60, fail)  # type: ignore[method-assign]
    with pytest.raises(WeightsError, match="do not run: MemoryError: no room"):
        tools.run(placed)


def test_a_process_that_dies_is_an_error_and_not_the_end_of_the_command() -> None:
    with pytest.raises(MeasureError, match="ended its process"):
        in_child(60, os._exit, 6)


def time_passes() -> None:
    """Returns, but not before its limit."""


def fail() -> None:
    """As a library does that finds no memory."""
    raise MemoryError("no room")


def test_the_choice_weighs_prefill_and_decode_of_a_typical_decision() -> None:
    reference = measured(1, 1).log_probs
    prefill = candidate("A", measured(1600, 100), reference)
    decode = candidate("B", measured(800, 400), reference)
    original = candidate(ORIGINAL, measured(400, 100), reference)
    assert prefill.seconds == pytest.approx(80 / 1600 + 16 / 100)
    assert choose([original, prefill, decode]) == "B"
    assert choose([original]) == ORIGINAL
    assert choose([original, Candidate(format="C", fault="failed")]) == ORIGINAL


def test_agreement_and_divergence_are_those_of_the_definition() -> None:
    reference = np.log(np.array([[0.7, 0.3], [0.4, 0.6]], dtype=np.float32))
    found = np.log(np.array([[0.7, 0.3], [0.6, 0.4]], dtype=np.float32))
    agreement, divergence = faithfulness(reference, found)
    assert agreement == 0.5
    assert divergence == pytest.approx((0 + 0.2 * np.log(1.5)) / 2, rel=1e-5)
    assert faithfulness(reference, found[:1])[0] == 0
    assert faithfulness(reference, np.full_like(found, np.nan))[0] == 0
