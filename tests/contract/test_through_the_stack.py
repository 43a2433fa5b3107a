"""Served models through the whole of Uptier: routed, asked, checked, billed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.main import run
from tests.contract import protocols
from tests.contract.cases import KEY
from tests.contract.protocols import Answer
from tests.contract.standins import Standin

PROFILE = """
[tiers.local]
rank = 1

[tiers.cloud]
rank = 2

[lanes.tier1]
tier = "local"
model = "phi"

[lanes.tier2]
tier = "cloud"
model = "gpt"

[models.phi]
backend = "ollama"
provider = "ollama"
remote_name = "standin"

[models.gpt]
backend = "openai"
provider = "openai"
price = { input = "2.5", output = "10" }

[providers.ollama]
backend = "ollama"
base_url = "{ollama}"
local = true

[providers.openai]
backend = "openai"
base_url = "{openai}/v1"
api_key_env = "OPENAI_API_KEY"

[kinds.who]
tier = "local"
output = "choice"
labels = ["YIELD", "INSIST"]

[routing]
unknown_kind_tier = "local"
critic_tier = "local"
"""
UNSURE = Answer("YIELD", {"YIELD": 0.5, "INSIST": 0.47, "The": 0.03})
SURE = Answer("YIELD", {"YIELD": 0.9, "INSIST": 0.05, "The": 0.05})


def test_what_ollama_guesses_openai_settles_on_the_bill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("UPTIER_BROKER_URL", "UPTIER_DATABASE_URL", "UPTIER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UPTIER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    profile = tmp_path / "served.toml"
    with (
        Standin(protocols.Ollama(), lambda asked: UNSURE) as ollama,
        Standin(protocols.OpenAI(), lambda asked: SURE) as openai,
    ):
        text = PROFILE.replace("{ollama}", ollama.url).replace("{openai}", openai.url)
        profile.write_text(text)
        asked = ["decide", "--kind", "who", "--prompt", "Who?", "--profile", str(profile)]
        assert run([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["status"], found["answer"], found["answer_lane"]) == (
        "accepted", "YIELD", "tier2",
    )  # fmt: skip
    guessed, settled = found["attempts"]
    assert (guessed["verdict"]["passed"], guessed["cost_usd"]) == (False, 0)
    # 100 tokens read at 2.5 and 5 written at 10 micro-dollars.
    assert (settled["verdict"]["passed"], settled["cost_usd"]) == (True, 0.0003)
    assert len(ollama.asked) == len(openai.asked) == 1
