"""Nothing of the environment reaches a contract: no address, no key, no proxy."""

from __future__ import annotations

import pytest

from tests.contract.cases import SERVED, Case

NAMES = (
    "ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_KEY",
    "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "GEMINI_API_KEY", "HTTP_PROXY", "HTTPS_PROXY",
    "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=SERVED, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    """Every backend that reaches its model over HTTP, one after another."""
    found: Case = request.param
    return found
