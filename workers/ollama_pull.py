"""Has Ollama fetch a model into its own store, and tells how far it is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from config.catalog import BackendName
from config.errors import InputError, WeightsError
from config.keys import find_key
from config.settings import Settings
from workers.backends.http_client import UNREADABLE, JsonClient, translated
from workers.backends.http_provider import CHECK_TIMEOUT_S, Access, key_name
from workers.backends.ollama import DEFAULTS, PROTOCOL, has, ollama_access, remote_name
from workers.progress import Report, Step, quiet


@dataclass(frozen=True)
class OllamaPulled:
    """A model that Ollama has under ``remote``; ``fetched`` is False if it already had it.

    ``size`` is what was fetched, or what Ollama says it takes, in bytes.
    """

    name: str
    remote: str
    size: int
    fetched: bool


def ollama_models(settings: Settings, names: Sequence[str] = ()) -> list[str]:
    """Those of the named models that Ollama serves, or those that the lanes use."""
    models = settings.catalog.models
    wanted = names or dict.fromkeys(lane.model for lane in settings.catalog.lanes.values())
    return [
        name
        for name in dict.fromkeys(wanted)
        if name in models
        and models[name].backend is BackendName.OLLAMA
        and (names or models[name].enabled)
    ]


def pull_ollama(settings: Settings, name: str, report: Report = quiet) -> OllamaPulled:
    """Have Ollama fetch a model; what it has of it already is not fetched again.

    Raises:
        InputError: the model is not one of Ollama's.
        ConfigurationError: the URL is malformed, or the key is missing.
        WeightsError: Ollama cannot be reached, does not know the model, or broke off.
        KeyboardInterrupt: Ollama keeps the parts that it has.
    """
    if not ollama_models(settings, [name]):
        raise InputError(f"model {name!r} is not one of Ollama's in this profile")
    reached = _reached(settings, name)
    client = JsonClient(reached, CHECK_TIMEOUT_S)
    remote = remote_name(name, settings.catalog.models[name])
    try:
        if has(client.get("/api/tags", CHECK_TIMEOUT_S), remote):
            return OllamaPulled(name, remote, _size(client, remote), fetched=False)
        with client.lines("/api/pull", {"model": remote, "stream": True}) as lines:
            size = _follow(name, lines, report)
    except UNREADABLE as error:
        _, found = translated(error, PROTOCOL, 0, CHECK_TIMEOUT_S)
        raise WeightsError(
            f"{reached.name} at {reached.host} cannot pull {remote!r} for {name}: {found}; see "
            "that `ollama serve` runs there and that the name is right, then run the command again"
        ) from None
    finally:
        client.close()
    return OllamaPulled(name, remote, size, fetched=True)


def _reached(settings: Settings, name: str) -> Access:
    model = settings.catalog.models[name]
    provider = settings.catalog.providers.get(model.provider) if model.provider else None
    wanted = key_name(provider, DEFAULTS)
    key = find_key(wanted, settings.keys_file) if wanted else None
    return ollama_access(model, provider, key)


def _follow(name: str, lines: Iterator[str], report: Report) -> int:
    """Tell of every layer as part of the whole; the bytes of all layers."""
    done: dict[str, int] = {}
    total: dict[str, int] = {}
    status = ""
    for line in lines:
        if not line.strip():
            continue
        said: Any = json.loads(line)
        if not isinstance(said, dict) or "error" in said:
            raise ValueError(said["error"] if isinstance(said, dict) else line)
        status = str(said.get("status", ""))
        if "digest" in said and "total" in said:
            total[said["digest"]] = int(said["total"])
            done[said["digest"]] = int(said.get("completed", 0))
        note = "fetching" if status.startswith("pulling ") else status
        report(Step(name, sum(done.values()), sum(total.values()) or None, note))
    if status != "success":
        raise ValueError(f"it ended with {status!r}")
    return sum(total.values())


def _size(client: JsonClient, remote: str) -> int:
    listed = client.get("/api/tags", CHECK_TIMEOUT_S).get("models") or ()
    return next((int(m.get("size", 0)) for m in listed if remote in (m["name"], m.get("model"))), 0)
