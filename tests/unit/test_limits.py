"""What a model was made for is asked of its file before it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from config.errors import ConfigurationError, WeightsError
from config.load import PROFILES
from config.settings import load_settings
from tests.unit.gguf_file import TOKENS, write_file
from workers.backends.llama_cpp import open_llama
from workers.engine.limits import check_model, trained_for


def write(path: Path, family: str, **more: Any) -> Path:
    """A file that says what it is, without any weights."""
    metadata = {
        "general.architecture": family,
        f"{family}.context_length": 512,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.scores": [0.0] * len(TOKENS),
        "tokenizer.ggml.token_type": [1] * len(TOKENS),
    }
    write_file(path, metadata | {f"{family}.{key}": value for key, value in more.items()}, {})
    return path


def test_a_context_longer_than_the_model_was_made_for_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", "llama")
    check_model(path, "own", 512)
    with pytest.raises(ConfigurationError) as error:
        check_model(path, "own", 513)
    assert str(error.value) == (
        "models.own: context 513 exceeds the 512 tokens that m.gguf was made for: "
        "set context to 512 at most"
    )
    assert error.value.exit_code == 2


def test_a_stretched_model_takes_what_it_was_stretched_to(tmp_path: Path) -> None:
    scaling = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0,
               "rope.scaling.original_context_length": 512}  # fmt: skip
    path = write(tmp_path / "m.gguf", "qwen2", **scaling)
    check_model(path, "own", 2048)
    with pytest.raises(ConfigurationError, match="context 2049 exceeds the 2048 tokens"):
        check_model(path, "own", 2049)


@pytest.mark.parametrize(
    ("told", "most"),
    [
        ({"context_length": "8192"}, 8192),
        # Qwen 2.5 with YaRN: the file tells the length before it.
        ({"context_length": "32768", "type": "yarn", "factor": "4.000000",
          "original_context_length": "32768"}, 131072),
        # DeepSeek V3: the file tells the length after it.
        ({"context_length": "163840", "type": "yarn", "factor": "40.000000",
          "original_context_length": "4096"}, 163840),
        ({"context_length": "4096", "type": "yarn", "factor": "2"}, 8192),
        # DeepSeek Coder, Phi 3: the length after it, and a factor, or an original length.
        ({"context_length": "16384", "type": "linear", "factor": "4.000000"}, 16384),
        ({"context_length": "131072", "type": "longrope", "original_context_length": "4096"},
         131072),
        ({"context_length": "0"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_files_tell_lengths_before_or_after_they_were_stretched(
    told: dict[str, str], most: int | None
) -> None:
    scaling = ("type", "factor", "original_context_length")
    given = {f"rope.scaling.{key}" if key in scaling else key: v for key, v in told.items()}
    assert trained_for(given.get) == most


@pytest.mark.parametrize("family", ["mamba", "jamba"])
def test_a_recurrent_model_is_refused_by_name(tmp_path: Path, family: str) -> None:
    path = write(tmp_path / "m.gguf", family)
    with pytest.raises(ConfigurationError) as error:
        check_model(path, "own", 128)
    assert f"m.gguf is recurrent ({family})" in str(error.value)
    assert "'llama_server'" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(WeightsError, match="is not a model"):
        check_model(path, "own", 128)


def test_a_worker_asks_before_it_loads(tmp_path: Path) -> None:
    weights = write(tmp_path / "own.gguf", "llama")
    text = (PROFILES / "tiny.toml").read_text()
    head, _, rest = text.partition("[models.smollm2-135m.weights]\n")
    _, _, rest = rest.partition("\n[")
    own = f'file = "own.gguf"\nsource = {{ kind = "file", path = "{weights}" }}\n'
    profile = tmp_path / "own.toml"
    profile.write_text(f"{head}[models.smollm2-135m.weights]\n{own}\n[{rest}")
    settings = load_settings(profile=str(profile), models_dir=tmp_path / "models")
    with pytest.raises(ConfigurationError, match="context 2048 exceeds the 512 tokens"):
        open_llama(settings, "tier1")
