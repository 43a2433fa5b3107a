"""Opens the backend of a lane."""

from __future__ import annotations

from config.catalog import BackendName, Lane, Model
from config.errors import ConfigurationError
from config.keys import find_key
from config.settings import Settings
from workers.backends.anthropic import AnthropicBackend, key_name
from workers.backends.base import Backend
from workers.backends.scripted import ScriptedBackend


def open_backend(settings: Settings, lane_name: str) -> Backend:
    """The backend that answers for a lane, its model loaded.

    Raises:
        ConfigurationError: the lane's backend is not built in, its weights are missing, or its
            provider refuses the key.
    """
    catalog = settings.catalog
    lane, model = catalog.lanes[lane_name], catalog.lane_model(lane_name)
    if model.backend is BackendName.SCRIPTED:
        return ScriptedBackend(lane.model, model)
    if model.backend is BackendName.ANTHROPIC:
        return _open_anthropic(settings, lane, model)
    if model.backend is BackendName.LLAMA_CPP:
        # Imported here: loading llama.cpp's library costs every other worker time and memory.
        from workers.backends.llama_cpp import open_llama

        return open_llama(settings, lane_name)
    raise ConfigurationError(
        f"backend {model.backend.value!r} of model {lane.model!r} is not served by this version: "
        "use llama_cpp, anthropic or scripted"
    )


def _open_anthropic(settings: Settings, lane: Lane, model: Model) -> AnthropicBackend:
    provider = settings.catalog.providers.get(model.provider) if model.provider else None
    key = find_key(key_name(provider), settings.keys_file)
    backend = AnthropicBackend(lane.model, model, provider, lane.slots, key=key)
    backend.check()
    return backend
