"""Local weights: which models need them, whether they are here and whole, what a worker loads.

An adapter's weights go by ``MODEL/ADAPTER``; neither name can hold a slash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from config.catalog import FileSource, HubSource, Weights
from config.errors import InputError, WeightsError
from config.settings import Settings
from workers.choices import ORIGINAL, PREPARED, remembered
from workers.verified import recall, sha256_of

Advance = Callable[[int], None]


class State(StrEnum):
    """Whether weights can be served."""

    MISSING = "missing"
    PARTIAL = "partial"
    WRONG = "wrong"
    READY = "ready"


@dataclass(frozen=True)
class ModelInfo:
    """A model or an adapter, as ``uptier models list`` shows it; sizes in bytes.

    ``here`` counts the bytes on this machine, ``size`` what the whole file has, where known.
    ``format`` is ``None`` until ``uptier models prepare`` has measured.
    """

    name: str
    lanes: tuple[str, ...]
    tiers: tuple[str, ...]
    size: int | None
    here: int
    state: State
    format: str | None
    path: Path
    fault: str | None = None


def select(settings: Settings, names: Sequence[str] = ()) -> list[str]:
    """The named models, or those with weights that a lane of the profile uses.

    Raises:
        InputError: a name is not in the profile, or the model has no weights.
    """
    models, lanes = settings.catalog.models, settings.catalog.lanes.values()
    if not names:
        used = dict.fromkeys(lane.model for lane in lanes)
        return [name for name in used if models[name].weights is not None]
    local = [name for name, model in models.items() if model.weights is not None]
    for name in names:
        if name not in local:
            raise InputError(
                f"model {name!r} has no weights in profile {settings.catalog.profile!r}: "
                f"choose from {', '.join(local) or 'another profile'}"
            )
    return list(dict.fromkeys(names))


def weights_of(settings: Settings, name: str) -> Weights:
    """The catalog's entry of the weights of a model, or of an adapter as ``MODEL/ADAPTER``.

    Raises:
        InputError: the profile has no such model or adapter, or it has no weights.
    """
    model_name, _, adapter = name.partition("/")
    select(settings, [model_name])
    model = settings.catalog.models[model_name]
    weights = model.adapters.get(adapter) if adapter else model.weights
    if weights is None:
        raise InputError(
            f"adapter {name!r} has no file in profile {settings.catalog.profile!r}: give it file "
            f"and source under [models.{model_name}.adapters.{adapter}]"
        )
    return weights


def adapters_of(settings: Settings, model_name: str) -> list[str]:
    """A model's adapters that have a file, each as ``MODEL/ADAPTER``."""
    adapters = settings.catalog.models[model_name].adapters
    return [f"{model_name}/{name}" for name, weights in adapters.items() if weights is not None]


def original_path(settings: Settings, name: str) -> Path:
    """Where the weights lie, or will lie, as they come.

    Raises:
        WeightsError: a file source is not an absolute path.
    """
    weights = weights_of(settings, name)
    if not isinstance(weights.source, FileSource):
        return settings.models_dir / weights.file
    path = Path(weights.source.path).expanduser()
    if not path.is_absolute():
        raise WeightsError(
            f"weights of {name}: path {weights.source.path!r} must be absolute; correct it in "
            f"profile {settings.catalog.profile!r}"
        )
    return path


def partial_dir(settings: Settings, weights: Weights) -> Path:
    """Where parts of a download wait; other sources of a file of the same name wait elsewhere."""
    source = weights.source.model_dump_json() + str(weights.sha256)
    digest = hashlib.sha256(source.encode()).hexdigest()[:8]
    return settings.models_dir / "partial" / f"{weights.file}.{digest}"


def partial_bytes(directory: Path) -> int:
    """The bytes that an interrupted download left there for the next one to go on from."""
    total = 0
    for path in directory.rglob("*"):
        kept = ".part" in path.name or path.name.endswith(".incomplete")
        with suppress(OSError):  # a download at work renames its files
            total += path.stat().st_size if kept and path.is_file() else 0
    return total


def copies_while_pulled(weights: Weights) -> int:
    """How many times its size a pull takes: a package's parts and the file that they are joined
    into lie side by side for a moment."""
    return 1 if isinstance(weights.source, HubSource) else 2


def hub_key(weights: Weights) -> str | None:
    """The name under which the hub's own hash of these weights is remembered."""
    source = weights.source
    if not isinstance(source, HubSource):
        return None
    return f"{source.repo}@{source.revision}/{weights.file}"


def wanted_sha256(settings: Settings, weights: Weights) -> str | None:
    """What the weights must hash to: the catalog's word, else the hub's as it was pulled."""
    if weights.sha256 is not None:
        return weights.sha256
    key = hub_key(weights)
    return recall(settings.models_dir).hub.get(key) if key else None


def verified_sha256(settings: Settings, name: str, advance: Advance | None = None) -> str:
    """The hash of a model's weights as they come, once they are found to be whole.

    Raises:
        WeightsError: missing, of the wrong size, or of another hash.
    """
    weights, path = weights_of(settings, name), original_path(settings, name)
    if not path.is_file():
        raise WeightsError(f"weights of {name} are missing at {path}: {_mend(settings, name)}")
    try:
        return check(path, weights, wanted_sha256(settings, weights), settings, advance)
    except OSError as error:
        raise WeightsError(f"weights of {name} cannot be read: {error}") from None
    except WeightsError as error:
        raise WeightsError(f"weights of {name}: {error}; {_mend(settings, name)}") from None


def check(
    path: Path,
    weights: Weights,
    wanted: str | None,
    settings: Settings,
    advance: Advance | None = None,
) -> str:
    """The hash of a file that has the size and the hash it must have.

    Raises:
        WeightsError: it has not; the message says what it has.
    """
    size = path.stat().st_size
    if weights.size is not None and size != weights.size:
        raise WeightsError(f"{path} has {size} bytes instead of {weights.size}")
    got = sha256_of(settings.models_dir, path, advance)
    if wanted is not None and got != wanted:
        raise WeightsError(f"{path} has sha256 {got} instead of {wanted}")
    return got


def weights_path(settings: Settings, model_name: str) -> Path:
    """The file that a worker loads: the prepared format chosen for this machine, else the original.

    Raises:
        WeightsError: missing or wrong; the message names the command that mends it.
    """
    return _served(settings, model_name)[1]


def adapter_paths(settings: Settings, model_name: str) -> dict[str, Path]:
    """The files of a model's adapters, by the adapters' own names.

    Raises:
        WeightsError: one is missing or wrong; the message names the command that mends it.
    """
    return {
        name.partition("/")[2]: _served(settings, name)[1]
        for name in adapters_of(settings, model_name)
    }


def model_fingerprint(settings: Settings, model_name: str) -> str:
    """``sha256:format`` of what a worker loads, for the keys of caches and calibrations.

    A model with adapters has ``+`` and 16 digits more, for their files and the kinds that use them.

    Raises:
        WeightsError: missing or wrong.
    """
    sha256, _, chosen = _served(settings, model_name)
    return f"{sha256}:{chosen or ORIGINAL}{_adapters_mark(settings, model_name)}"


def _adapters_mark(settings: Settings, model_name: str) -> str:
    files = {name: verified_sha256(settings, name) for name in adapters_of(settings, model_name)}
    if not files:
        return ""
    named = settings.catalog.models[model_name].adapters
    kinds = {n: k.adapter for n, k in settings.catalog.kinds.items() if k.adapter in named}
    text = json.dumps([files, kinds], sort_keys=True)
    return "+" + hashlib.sha256(text.encode()).hexdigest()[:16]


def list_models(settings: Settings) -> list[ModelInfo]:
    """Every model and adapter of the profile that has weights; unknown files are hashed once."""
    models = settings.catalog.models
    local = [name for name, model in models.items() if model.weights is not None]
    return [
        _info(settings, each) for name in local for each in (name, *adapters_of(settings, name))
    ]


def _served(settings: Settings, name: str) -> tuple[str, Path, str | None]:
    """The original's hash, the file to load, and the format if one was chosen here."""
    sha256 = verified_sha256(settings, name)
    choice = remembered(settings.models_dir, name, sha256)
    if choice is None:
        return sha256, original_path(settings, name), None
    # A format that the catalog has since dropped is not served, though it was chosen once.
    if choice.file is None or choice.format not in weights_of(settings, name).formats:
        return sha256, original_path(settings, name), ORIGINAL
    path = settings.models_dir / PREPARED / choice.file
    try:
        whole = sha256_of(settings.models_dir, path) == choice.sha256
    except OSError:
        whole = False
    if whole:
        return sha256, path, choice.format
    # The original answers as well, only slower; the next `prepare` makes the file again.
    return sha256, original_path(settings, name), None


def _info(settings: Settings, name: str) -> ModelInfo:
    weights, path = weights_of(settings, name), original_path(settings, name)
    model = name.partition("/")[0]
    lanes = {n: lane for n, lane in settings.catalog.lanes.items() if lane.model == model}
    state, chosen, fault, here = State.READY, None, None, 0
    try:
        _, path, chosen = _served(settings, name)
        here = original_path(settings, name).stat().st_size
    except WeightsError as error:
        fault = str(error)
        here = partial_bytes(partial_dir(settings, weights))
        state = State.PARTIAL if here else State.WRONG if path.is_file() else State.MISSING
    return ModelInfo(
        name=name,
        lanes=tuple(lanes),
        tiers=tuple(dict.fromkeys(lane.tier for lane in lanes.values())),
        size=weights.size,
        here=here,
        state=state,
        format=chosen,
        path=path,
        fault=fault,
    )


def _mend(settings: Settings, name: str) -> str:
    if isinstance(weights_of(settings, name).source, FileSource):
        return f"put the file there or correct its path in profile {settings.catalog.profile!r}"
    model = name.partition("/")[0]
    used = any(lane.model == model for lane in settings.catalog.lanes.values())
    which = "" if used else f" {model}"
    return f"run `uptier models pull{which} --profile {settings.profile}`"
