"""Adapters in the catalog, which of them answers a decision, and how they are pulled."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from config.catalog import Catalog
from config.errors import InputError, WeightsError
from config.load import load_catalog
from config.settings import Settings
from routing.adapters import adapter_of
from routing.fingerprint import place_of
from tests.unit.catalogs import catalog, decision
from workers.models import (
    State,
    adapter_paths,
    list_models,
    model_fingerprint,
    select,
    weights_of,
    weights_path,
)
from workers.pull import pull

LOCAL = {
    "backend": "llama_cpp",
    "weights": {"file": "w.gguf", "source": {"kind": "file", "path": "/w.gguf"}},
}
FILE = {"file": "a.gguf", "source": {"kind": "file", "path": "/a.gguf"}}
ADAPTER = b"an adapter"
ADAPTER_SHA = hashlib.sha256(ADAPTER).hexdigest()


def adapted(**changes: Any) -> Catalog:
    """The small catalog with a local model that has adapters, on the second tier."""
    base = catalog().model_dump(mode="json")
    models = {**base["models"], "medium": LOCAL | {"adapters": {"calm": FILE, "named": {}}}}
    kinds = {**base["kinds"], "blocker_resolution": {"tier": "local_quality", "adapter": "calm"}}
    return catalog(models=models, kinds=kinds, **changes)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"backend": "scripted", "adapters": {"calm": FILE}}, "adapters are for llama_cpp"),
        (LOCAL | {"adapters": {"calm": FILE | {"formats": ["BF16"]}}}, "drop its formats"),
        (LOCAL | {"adapters": {"named": {}}, "preload": ["named"]}, "no adapter with a file"),
        (LOCAL | {"preload": ["nobody"]}, "no adapter with a file"),
        (
            LOCAL | {"adapters": {"calm": FILE}, "preload": ["calm", "calm"], "max_adapters": 1},
            "raise it or preload fewer",
        ),
        (LOCAL | {"max_adapters": 0}, "greater than or equal to 1"),
        (LOCAL | {"adapters": {"../up": FILE}}, "should match pattern"),
    ],
)
def test_a_catalog_with_wrong_adapters_says_what_to_mend(model: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        catalog(models={**catalog().model_dump(mode="json")["models"], "medium": model})


def test_a_kind_names_an_adapter_that_some_model_has() -> None:
    with pytest.raises(ValidationError, match="'calmer' is not defined: choose one of calm, named"):
        models = adapted().model_dump(mode="json")["models"]
        kinds = {"next_action": {"tier": "local_fast", "adapter": "calmer"}}
        catalog(models=models, kinds=kinds)


def test_nodespace_names_its_adapters_and_has_no_files_for_them() -> None:
    adapters = load_catalog("nodespace").models["gemma-3-12b"].adapters
    assert len(adapters) == 5
    assert set(adapters.values()) == {None}


@pytest.mark.parametrize(
    ("kind", "wish", "lane", "expected"),
    [
        ("blocker_resolution", None, "tier2", "calm"),
        ("blocker_resolution", None, "tier1", ""),
        ("blocker_resolution", None, "tier3", ""),
        ("blocker_resolution", "", "tier2", ""),
        ("blocker_resolution", "named", "tier2", "named"),
        ("next_action", None, "tier2", ""),
        ("next_action", "calm", "tier2", "calm"),
        ("next_action", "calm", "tier3", ""),
        ("never heard of", "calm", "tier2", "calm"),
        ("next_action", "nobody", "tier2", "nobody"),
    ],
)
def test_the_askers_wish_goes_before_the_kind_and_other_models_answer_without(
    kind: str, wish: str | None, lane: str, expected: str
) -> None:
    assert adapter_of(decision(kind, adapter=wish), adapted(), lane) == expected


@pytest.mark.parametrize("name", ["../x", "a b", "-x", "x" * 65])
def test_a_wish_is_a_name(name: str) -> None:
    with pytest.raises(ValidationError):
        decision(adapter=name)


def test_answers_of_different_adapters_are_kept_apart() -> None:
    keys = {place_of(decision(adapter=name), "r", "m@1").key for name in (None, "", "calm", "bold")}
    assert len(keys) == 4


def toy(profile: Any, **more: Any) -> Settings:
    """A model whose adapter is a file beside it, and one that is only named."""
    path = more.pop("path")
    extra = f'adapters.named = {{}}\nadapters.calm = {{ file = "calm.gguf", sha256 = ' \
        f'"{ADAPTER_SHA}", source = {{ kind = "file", path = "{path}" }} }}'  # fmt: skip
    settings: Settings = profile(model_extra=extra, **more)
    return settings


def test_adapters_are_pulled_verified_and_listed_with_their_model(
    profile: Any, index: Path, tmp_path: Path
) -> None:
    path = tmp_path / "calm.gguf"
    settings = toy(profile, path=path)
    with pytest.raises(WeightsError, match="weights of toy/calm are missing at .*calm.gguf: put"):
        pull(settings)
    path.write_bytes(b"another file")
    with pytest.raises(WeightsError, match=f"toy/calm: .* instead of {ADAPTER_SHA}"):
        adapter_paths(settings, "toy")
    assert [info.state for info in list_models(settings)] == [State.READY, State.WRONG]
    path.write_bytes(ADAPTER)
    assert [done.name for done in pull(settings)] == ["toy", "toy/calm"]
    assert adapter_paths(settings, "toy") == {"calm": path}
    found = list_models(settings)[1]
    assert (found.name, found.lanes, found.state) == ("toy/calm", ("tier1",), State.READY)
    assert select(settings) == ["toy"]


def test_an_adapter_is_fetched_from_where_weights_are_fetched_from(
    profile: Any, index: Path, tmp_path: Path
) -> None:
    extra = (
        'adapters.calm = { file = "calm.gguf", source = { kind = "package", package = '
        '"toy-weights-part1", version = "1.0", member = "toy_weights_part1/data/part01.bin" } }'
    )
    settings = profile(model_extra=extra)
    assert [done.fetched for done in pull(settings)] == [True, True]
    assert adapter_paths(settings, "toy")["calm"] == settings.models_dir / "calm.gguf"
    assert not any(done.fetched for done in pull(settings))


def test_a_name_without_a_file_has_no_weights(profile: Any, tmp_path: Path) -> None:
    settings = toy(profile, path=tmp_path / "calm.gguf")
    for name in ("toy/named", "toy/nobody"):
        with pytest.raises(InputError, match="has no file in profile"):
            weights_of(settings, name)


def test_another_adapter_is_another_fingerprint(placed: Settings, profile: Any) -> None:
    path = placed.models_dir / "calm.gguf"
    path.write_bytes(ADAPTER)
    without = model_fingerprint(placed, "toy")
    settings = toy(profile, path=path)
    with_it = model_fingerprint(settings, "toy")
    assert with_it.startswith(f"{without}+")
    assert len(with_it) <= 100
    profile_text = Path(settings.profile).read_text()
    Path(settings.profile).write_text(
        profile_text.replace("[kinds]", '[kinds.ask]\ntier = "fast"\nadapter = "calm"')
    )
    used = Settings(profile=settings.profile, models_dir=settings.models_dir)
    assert model_fingerprint(used, "toy") not in (with_it, without)
    assert weights_path(used, "toy") == placed.models_dir / "toy.gguf"
