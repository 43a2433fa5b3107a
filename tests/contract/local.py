"""The backends that answer here: a script, and SmolLM2 in process and behind a server."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from config.catalog import BackendName, Model, Provider
from config.errors import WeightsError
from config.load import PROFILES
from config.settings import Settings, load_settings
from workers.backends.base import Backend
from workers.backends.llama_server import LlamaServerBackend
from workers.backends.openai import OpenAIBackend
from workers.backends.scripted import ScriptedBackend
from workers.models import original_path, verified_sha256, weights_path

CONTEXT = 1024
NAME = "smollm2-135m"


@contextmanager
def scripted(directory: Path) -> Iterator[Backend]:
    """A script that says what it likes."""
    yield ScriptedBackend("toy", Model(backend=BackendName.SCRIPTED))


@contextmanager
def llama_cpp(directory: Path) -> Iterator[Backend]:
    """The engine in process."""
    from workers.backends.llama_cpp import open_llama

    yield open_llama(_settings(directory, BackendName.LLAMA_CPP), "tier1")


@contextmanager
def transformers(directory: Path) -> Iterator[Backend]:
    """Hugging Face's classes on the same weights."""
    for module in ("torch", "transformers", "gguf"):
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed: it comes with the extra 'transformers'")
    from workers.backends.transformers import open_transformers

    yield open_transformers(_settings(directory, BackendName.TRANSFORMERS), "tier1")


@contextmanager
def llama_server(directory: Path) -> Iterator[Backend]:
    """llama.cpp's server, asked in its own words."""
    with _server() as url:
        model = Model(backend=BackendName.LLAMA_SERVER, provider="own", context=CONTEXT)
        provider = Provider(backend=BackendName.LLAMA_SERVER, base_url=url, local=True)
        backend = LlamaServerBackend(model, provider, 2, key=None)
        backend.check()
        yield backend


@contextmanager
def llama_server_v1(directory: Path) -> Iterator[Backend]:
    """llama.cpp's server, asked in OpenAI's words."""
    with _server() as url:
        model = Model(backend=BackendName.OPENAI, provider="own", context=CONTEXT)
        provider = Provider(
            backend=BackendName.OPENAI, base_url=f"{url}/v1", dialect="llama_server", local=True
        )
        backend = OpenAIBackend("own", model, provider, 2, key=None)
        backend.check()
        yield backend


LOCAL: tuple[Callable[[Path], object], ...] = (
    scripted, llama_cpp, llama_server, llama_server_v1, transformers,
)  # fmt: skip


@contextmanager
def _server() -> Iterator[str]:
    """A llama-server in this process, and its address."""
    _weights()
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(weights_path(load_settings(profile="tiny"), NAME))
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.n_parallel, params.n_ctx = 1, CONTEXT
    params.cpuparams.n_threads = 2
    params.verbosity = 0
    server = xllamacpp.Server(params)
    yield server.listening_address
    del server


def _settings(directory: Path, backend: BackendName) -> Settings:
    """The profile ``tiny`` with another backend and the weights that are here."""
    settings = _weights()
    text = (PROFILES / "tiny.toml").read_text()
    text = text.replace('backend = "llama_cpp"', f'backend = "{backend}"')
    text = text.replace("context = 2048", f"context = {CONTEXT}")
    if backend is BackendName.TRANSFORMERS:
        text = text.replace('formats = ["BF16", "Q8_0", "F16"]', "formats = []")
    path = directory / "local.toml"
    path.write_text(text)
    return load_settings(profile=str(path), models_dir=settings.models_dir)


def _weights() -> Settings:
    """Settings under which the small model is here; absent weights fail in CI, else skip."""
    settings = load_settings(profile="tiny")
    try:
        verified_sha256(settings, NAME)
        assert original_path(settings, NAME).is_file()
    except WeightsError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))
    return settings
