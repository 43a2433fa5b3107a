"""What a worker loads: verified weights, or an error that names the mend."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from config.errors import InputError, WeightsError
from config.settings import Settings
from tests.unit.models.toy import SHA, WHOLE
from workers import models, verified
from workers.choices import ORIGINAL
from workers.models import State, list_models, model_fingerprint, weights_path
from workers.pull import pull


def test_a_file_source_is_served_where_it_lies(profile: Any, tmp_path: Path) -> None:
    path = tmp_path / "own.gguf"
    path.write_bytes(WHOLE)
    settings = profile(f'{{ kind = "file", path = "{path}" }}')
    assert pull(settings)[0].path == path
    assert weights_path(settings, "toy") == path


def test_a_file_source_must_be_absolute_present_and_whole(profile: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="must be absolute"):
        pull(profile('{ kind = "file", path = "own.gguf" }'))
    path = tmp_path / "own.gguf"
    settings = profile(f'{{ kind = "file", path = "{path}" }}')
    with pytest.raises(WeightsError, match="missing at .*put the file there"):
        pull(settings)
    path.write_bytes(b"x" + WHOLE[1:])
    with pytest.raises(WeightsError, match="instead of " + SHA):
        pull(settings)


def test_missing_weights_name_the_command_that_mends_them(profile: Any) -> None:
    settings = profile()
    with pytest.raises(WeightsError) as caught:
        weights_path(settings, "toy")
    assert "weights of toy are missing at" in str(caught.value)
    assert f"uptier models pull --profile {settings.profile}" in str(caught.value)


def test_a_file_is_hashed_once_and_again_when_it_changes(
    placed: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []
    real = verified.hash_file
    monkeypatch.setattr(verified, "hash_file", lambda *args: hashed.append(1) or real(*args))
    path = weights_path(placed, "toy")
    weights_path(placed, "toy")
    assert len(hashed) == 1
    path.write_bytes(b"x" + WHOLE[1:])
    os.utime(path, ns=(1, 1))
    with pytest.raises(WeightsError, match="instead of " + SHA):
        weights_path(placed, "toy")
    assert len(hashed) == 2
    assert list_models(placed)[0].state is State.WRONG


def test_wrong_weights_are_replaced_by_a_pull(placed: Settings, index: Path) -> None:
    (placed.models_dir / "toy.gguf").write_bytes(b"x" + WHOLE[1:])
    assert pull(placed)[0].fetched
    assert weights_path(placed, "toy").read_bytes() == WHOLE


def test_a_damaged_memory_only_costs_hashing_again(placed: Settings) -> None:
    weights_path(placed, "toy")
    (placed.models_dir / verified.STATE).write_text("{ not json")
    assert model_fingerprint(placed, "toy") == f"{SHA}:{ORIGINAL}"


def test_only_models_with_weights_that_the_profile_knows_can_be_named(profile: Any) -> None:
    settings = profile()
    assert models.select(settings) == ["toy"]
    for name in ("far", "nowhere"):
        with pytest.raises(InputError, match="choose from toy"):
            models.select(settings, [name])
