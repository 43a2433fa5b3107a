"""The profiles that come with Uptier open and answer when their providers do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from config.catalog import IN_PROCESS, BackendName, Model
from config.errors import ConfigurationError
from config.load import PROFILES
from config.settings import Settings, load_settings
from tests.contract import protocols
from tests.contract.cases import CHOICE, KEY, ask
from tests.contract.standins import Standin
from workers.backends.factory import open_backend

# Profiles may name models whose end their provider has announced.
pytestmark = pytest.mark.filterwarnings("ignore:The model:DeprecationWarning")

SAYS = protocols.Answer("YIELD")
SURE = protocols.Answer("YIELD", {"YIELD": 0.7, "INSIST": 0.2, "WAIT": 0.1})
OLLAMA = ("phi3:mini", "llama3:8b", "mixtral:8x7b", "codestral:22b")
PLACES = {
    "http://127.0.0.1:11434": protocols.Ollama(*OLLAMA),
    "http://127.0.0.1:8080": protocols.LlamaServer(),
    "http://127.0.0.1:8081": protocols.LlamaServer(),
    "https://generativelanguage.googleapis.com/v1beta/openai/": protocols.OpenAI(),
}


@pytest.fixture
def around(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Standin]]:
    """A stand-in at every address that a profile names or takes from the environment."""
    with ExitStack() as stack:
        found = {
            url: stack.enter_context(Standin(wording, lambda asked: SURE))
            for url, wording in PLACES.items()
        }
        openai = stack.enter_context(Standin(protocols.OpenAI(), lambda asked: SURE))
        anthropic = stack.enter_context(Standin(protocols.Anthropic(), lambda asked: SAYS))
        monkeypatch.setenv("OPENAI_BASE_URL", f"{openai.url}/v1")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", anthropic.url)
        for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"):
            monkeypatch.setenv(name, KEY)
        yield found


def moved(profile: str, around: dict[str, Standin], directory: Path) -> Settings:
    """Settings of a profile whose addresses are those of the stand-ins."""
    text = (PROFILES / f"{profile}.toml").read_text()
    for url, standin in around.items():
        path = "/v1" if "google" in url else ""
        text = text.replace(f'"{url}"', f'"{standin.url}{path}"')
    (directory / "moved.toml").write_text(text)
    return load_settings(profile=str(directory / "moved.toml"))


@pytest.mark.parametrize(
    ("profile", "lanes"), [("swarm", 7), ("zeus", 3), ("nodespace", 3), ("laptop", 1)]
)
def test_a_profile_opens_when_its_providers_answer(
    profile: str, lanes: int, around: dict[str, Standin], tmp_path: Path
) -> None:
    settings = moved(profile, around, tmp_path)
    served = [
        name
        for name in settings.catalog.lanes
        if settings.catalog.lane_model(name).backend not in IN_PROCESS
    ]
    assert len(served) == lanes
    for name in served:
        backend = open_backend(settings, name)
        found = ask(backend, CHOICE)
        backend.close()
        assert (found.raw, found.error) == ("YIELD", None), name
        assert backend.capabilities.local is settings.catalog.is_local(
            settings.catalog.lanes[name].model
        )


def test_a_model_that_ollama_lacks_names_the_command_that_pulls_it(
    around: dict[str, Standin], tmp_path: Path
) -> None:
    settings = moved("swarm", around, tmp_path)
    wording = PLACES["http://127.0.0.1:11434"]
    assert isinstance(wording, protocols.Ollama)
    wording.names.remove("phi3:mini")
    try:
        with pytest.raises(ConfigurationError, match="uptier models pull phi3-mini"):
            open_backend(settings, "tier1")
    finally:
        wording.names.append("phi3:mini")


def test_what_the_sdk_finds_in_the_environment_goes_to_openai_alone(
    around: dict[str, Standin], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-secret")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-secret")
    backend = open_backend(moved("nodespace", around, tmp_path), "tier2.google")
    ask(backend, CHOICE)
    backend.close()
    gemini = around["https://generativelanguage.googleapis.com/v1beta/openai/"]
    assert "org-secret" not in str(gemini.asked[0].headers)
    assert "proj-secret" not in str(gemini.asked[0].headers)


def test_an_address_that_no_default_gives_is_asked_for(tmp_path: Path) -> None:
    text = (PROFILES / "nodespace.toml").read_text()
    text = text.replace('base_url = "https://generativelanguage.googleapis.com/v1beta/openai/"', "")
    (tmp_path / "moved.toml").write_text(text.replace('api_key_env = "GEMINI_API_KEY"', ""))
    settings = load_settings(profile=str(tmp_path / "moved.toml"), keys_file=_keys(tmp_path))
    with pytest.raises(ConfigurationError, match=r"set base_url in \[providers.google\]"):
        open_backend(settings, "tier2.google")


def test_an_extra_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.backends.transformers.import_module", _absent)
    text = (PROFILES / "tiny.toml").read_text()
    assert 'backend = "llama_cpp"' in text
    swapped = text.replace('backend = "llama_cpp"', f'backend = "{BackendName.TRANSFORMERS}"')
    (tmp_path / "moved.toml").write_text(swapped)
    settings = load_settings(profile=str(tmp_path / "moved.toml"))
    with pytest.raises(ConfigurationError, match=r"pip install 'uptier\[transformers\]'"):
        open_backend(settings, "tier1")


def _absent(name: str) -> None:
    raise ImportError(name)


def _keys(directory: Path) -> Path:
    path = directory / "keys"
    path.touch(mode=0o600)
    path.write_text(f"GEMINI_API_KEY={KEY}\n")
    return path


@pytest.mark.parametrize(
    ("option", "backend"),
    [
        ({"reasoning_effort": "low"}, BackendName.LLAMA_SERVER),
        ({"cache_from_tokens": 1024}, BackendName.OPENAI),
        ({"keep_alive_s": 60}, BackendName.LLAMA_SERVER),
    ],
)
def test_an_option_that_a_backend_does_not_read_is_refused(
    option: dict[str, object], backend: BackendName
) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(option))} is an option of"):
        Model.model_validate({"backend": backend, **option})
