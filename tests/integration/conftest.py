"""What integration tests share: places to run at, stand-in stacks, the small model's weights.

What is not on this machine skips a test on a person's machine, and fails it where ``CI`` is set.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pytest

from config.errors import WeightsError
from config.settings import Settings, load_settings
from tests.integration.places import PLACES, Absent, Place, place_of
from tests.integration.stacks import made_settings, owning
from workers.models import weights_path


@pytest.fixture(scope="session")
def smollm2() -> None:
    """The real SmolLM2 model."""
    try:
        weights_path(load_settings(profile="tiny"), "smollm2-135m")
    except WeightsError as error:
        not_here(str(error))


def not_here(reason: str) -> NoReturn:
    """Skip, or fail in CI, where everything has to be there."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module", params=PLACES)
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """A broker and a database, each of the places in turn."""
    with ExitStack() as undo:
        try:
            found = undo.enter_context(place_of(request.param, tmp_path_factory.mktemp("place")))
        except Absent as error:
            not_here(str(error))
        yield found


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
