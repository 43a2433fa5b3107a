"""What integration tests share: the small model's weights, or a reason why they are not there."""

from __future__ import annotations

import os

import pytest

from config.errors import WeightsError
from config.settings import load_settings
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
