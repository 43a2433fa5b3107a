"""llama.cpp itself converts and measures a tiny model of random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.unit.gguf_file import write_gguf
from workers.faithful import faithfulness
from workers.isolated import MeasureError, MeasureTimeout, in_child
from workers.measure import format_names, measure, quantize
from workers.measure_prompts import PROMPTS

LIMIT_S = 60.0


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "toy.gguf"
    write_gguf(path)
    return path


def test_a_file_is_measured_and_its_predictions_are_probabilities(original: Path) -> None:
    found = in_child(LIMIT_S, measure, original, 1)
    assert found.prefill > 0
    assert found.decode > 0
    assert found.format == "F32"
    assert 0 < found.share <= 1
    assert found.log_probs.shape[0] == len(PROMPTS)
    assert np.allclose(np.exp(found.log_probs).sum(1), 1, atol=1e-4)


def test_a_converted_file_is_smaller_and_as_true_as_its_format(
    original: Path, tmp_path: Path
) -> None:
    reference = in_child(LIMIT_S, measure, original, 1).log_probs
    converted = tmp_path / "toy.Q8_0.gguf"
    in_child(LIMIT_S, quantize, original, converted, "Q8_0", 1)
    found = in_child(LIMIT_S, measure, converted, 1)
    assert converted.stat().st_size < original.stat().st_size / 2
    assert found.format == "Q8_0"
    agreement, divergence = faithfulness(reference, found.log_probs)
    assert agreement >= 0.9
    assert 0 < divergence < 0.02


def test_what_llama_cpp_refuses_is_an_error_in_words(original: Path, tmp_path: Path) -> None:
    with pytest.raises(MeasureError, match="'Q99' is unknown"):
        in_child(LIMIT_S, quantize, original, tmp_path / "x", "Q99", 1)
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(original.read_bytes()[:2000])
    with pytest.raises(MeasureError, match="cannot load broken.gguf"):
        in_child(LIMIT_S, measure, broken, 1)


def test_a_call_that_takes_too_long_is_ended(original: Path) -> None:
    with pytest.raises(MeasureTimeout, match="took longer"):
        in_child(0.0, measure, original, 1)


def test_the_formats_that_the_profiles_name_exist() -> None:
    assert {"BF16", "F16", "Q8_0", "Q4_K_S", "F32"} <= format_names().keys()
