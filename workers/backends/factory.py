"""Opens the backend of a lane."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from config.catalog import BackendName, Lane, Model, Provider
from config.keys import find_key
from config.settings import Settings
from workers.backends.base import Backend
from workers.backends.scripted import ScriptedBackend

# Each backend is imported where it is opened: its library costs other workers time and memory.


def open_backend(settings: Settings, lane_name: str) -> Backend:
    """The backend that answers for a lane, its model loaded.

    Raises:
        ConfigurationError: the lane's weights are missing, its provider refuses the key or its
            URL is malformed, or an extra is not installed.
    """
    model = settings.catalog.lane_model(lane_name)
    if model.backend is BackendName.LLAMA_CPP:
        from workers.backends.llama_cpp import open_llama

        return open_llama(settings, lane_name)
    if model.backend is BackendName.TRANSFORMERS:
        from workers.backends.transformers import open_transformers

        return open_transformers(settings, lane_name)
    lane = settings.catalog.lanes[lane_name]
    provider = settings.catalog.providers.get(model.provider) if model.provider else None
    return OPENERS[model.backend](_Served(settings, lane, model, provider))


@dataclass(frozen=True)
class _Served:
    """A model, and what is known of how it is reached."""

    settings: Settings
    lane: Lane
    model: Model
    provider: Provider | None

    def key(self, name: str | None) -> str | None:
        """The key of that name, if there is one."""
        return find_key(name, self.settings.keys_file) if name else None


class _Checkable(Backend, Protocol):
    """A backend whose server can be looked at."""

    def check(self) -> None: ...


def _checked(backend: _Checkable) -> Backend:
    """The backend, once its server was looked at."""
    try:
        backend.check()
    except BaseException:
        backend.close()
        raise
    return backend


def _open_scripted(served: _Served) -> Backend:
    return ScriptedBackend(served.lane.model, served.model)


def _open_anthropic(served: _Served) -> Backend:
    from workers.backends.anthropic import AnthropicBackend, key_name

    lane, provider = served.lane, served.provider
    key = served.key(key_name(provider))
    return _checked(AnthropicBackend(lane.model, served.model, provider, lane.slots, key=key))


def _open_openai(served: _Served) -> Backend:
    from workers.backends.http_provider import key_name
    from workers.backends.openai import OpenAIBackend, customs

    lane, provider = served.lane, served.provider
    key = served.key(key_name(provider, customs(provider).defaults))
    return _checked(OpenAIBackend(lane.model, served.model, provider, lane.slots, key=key))


def _open_ollama(served: _Served) -> Backend:
    from workers.backends.http_provider import key_name
    from workers.backends.ollama import DEFAULTS, OllamaBackend

    lane, provider = served.lane, served.provider
    key = served.key(key_name(provider, DEFAULTS))
    return _checked(OllamaBackend(lane.model, served.model, provider, lane.slots, key=key))


def _open_llama_server(served: _Served) -> Backend:
    from workers.backends.http_provider import key_name
    from workers.backends.llama_server import DEFAULTS, LlamaServerBackend

    key = served.key(key_name(served.provider, DEFAULTS))
    return _checked(LlamaServerBackend(served.model, served.provider, served.lane.slots, key=key))


OPENERS: dict[BackendName, Callable[[_Served], Backend]] = {
    BackendName.SCRIPTED: _open_scripted,
    BackendName.ANTHROPIC: _open_anthropic,
    BackendName.OPENAI: _open_openai,
    BackendName.OLLAMA: _open_ollama,
    BackendName.LLAMA_SERVER: _open_llama_server,
}
