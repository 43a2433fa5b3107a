"""``uptier models pull`` of a model that Ollama serves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.main import run
from config.errors import WeightsError
from config.settings import Settings, load_settings
from tests.contract import protocols
from tests.contract.standins import Standin
from workers.ollama_pull import pull_ollama
from workers.progress import Step

PROFILE = """
[tiers.fast]
rank = 1

[lanes.tier1]
tier = "fast"
model = "phi"

[models.phi]
backend = "ollama"
provider = "ollama"
remote_name = "phi3:mini"

[providers.ollama]
backend = "ollama"
base_url = "{url}"
local = true

[kinds]

[routing]
unknown_kind_tier = "fast"
critic_tier = "fast"
"""
LAYERS = [
    {"status": "pulling manifest"},
    {"status": "pulling aaaa", "digest": "sha256:aaaa", "total": 3000},
    {"status": "pulling aaaa", "digest": "sha256:aaaa", "total": 3000, "completed": 1500},
    {"status": "pulling aaaa", "digest": "sha256:aaaa", "total": 3000, "completed": 3000},
    {"status": "pulling bbbb", "digest": "sha256:bbbb", "total": 1000, "completed": 1000},
    {"status": "verifying sha256 digest"},
    {"status": "success"},
]


class Pulling(protocols.Ollama):
    """An Ollama that fetches what it is asked for, or says why not."""

    lines = LAYERS

    def aside(self, path: str, body: protocols.Body) -> object:
        if path != "/api/pull":
            return None
        if self.lines[-1] == LAYERS[-1]:
            self.names.append(body["model"])
        return "\n".join(json.dumps(line) for line in self.lines)


@pytest.fixture
def ollama() -> Iterator[Standin]:
    with Standin(Pulling(), lambda asked: protocols.Answer("")) as standin:
        yield standin


@pytest.fixture
def settings(ollama: Standin, tmp_path: Path) -> Settings:
    (tmp_path / "own.toml").write_text(PROFILE.replace("{url}", ollama.url))
    return load_settings(profile=str(tmp_path / "own.toml"))


def test_a_model_is_pulled_once_and_its_layers_are_told_of(settings: Settings) -> None:
    steps: list[Step] = []
    first = pull_ollama(settings, "phi", steps.append)
    assert (first.remote, first.size, first.fetched) == ("phi3:mini", 4000, True)
    assert [(step.done, step.total) for step in steps[:4]] == [
        (0, None), (0, 3000), (1500, 3000), (3000, 3000),
    ]  # fmt: skip
    assert (steps[4].done, steps[4].total) == (4000, 4000)
    assert {step.model for step in steps} == {"phi"}
    assert not pull_ollama(settings, "phi").fetched


def test_the_command_pulls_it_too(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "pull", "--profile", settings.profile]) == 0
    assert "phi: pulled, 0 MB, in Ollama as phi3:mini" in capsys.readouterr().out
    assert run(["models", "pull", "phi", "--profile", settings.profile]) == 0
    assert "phi: already there" in capsys.readouterr().out


@pytest.mark.parametrize(
    "lines",
    [[{"status": "pulling manifest"}, {"error": "file does not exist"}], LAYERS[:3], ["broken"]],
    ids=["unknown", "broken-off", "malformed"],
)
def test_what_was_not_pulled_to_the_end_is_an_error_of_one_line(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, lines: list[object]
) -> None:
    monkeypatch.setattr(Pulling, "lines", lines)
    with pytest.raises(WeightsError, match="cannot pull 'phi3:mini' for phi") as error:
        pull_ollama(settings, "phi")
    assert "\n" not in str(error.value)
    assert "ollama serve" in str(error.value)


def test_an_ollama_that_is_not_there_is_named(settings: Settings, ollama: Standin) -> None:
    ollama.stop()
    with pytest.raises(WeightsError, match="127.0.0.1"):
        pull_ollama(settings, "phi")
