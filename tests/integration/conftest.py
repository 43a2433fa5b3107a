"""What integration tests share: the small model's weights, or a reason why they are not there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.errors import WeightsError
from config.settings import Settings, load_settings
from tests.integration.stacks import made_settings, owning
from workers.models import weights_path


@pytest.fixture(scope="session")
def smollm2() -> None:
    """The real SmolLM2 model; absent weights skip on a person's machine and fail in CI."""
    try:
        weights_path(load_settings(profile="tiny"), "smollm2-135m")
    except WeightsError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a stack of stand-in workers in a directory of its own."""
    for name in ("UPTIER_BROKER_URL", "UPTIER_BROKER_PORT", "UPTIER_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    return made_settings(tmp_path / "data")


@pytest.fixture
def owner(settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a stack of stand-in workers which is up."""
    with owning(settings) as process:
        yield process
