"""Weights: there, of the right size, and of the hash that was recorded; or hashed anew."""

from __future__ import annotations

from pathlib import Path

from config.catalog import Weights
from config.errors import WeightsError
from config.settings import Settings
from workers.choices import PREPARED, remembered
from workers.doctor.finding import Finding, Tell, failure, warning, well
from workers.models import adapters_of, original_path, select, wanted_sha256, weights_of
from workers.verified import hash_file, record_of


def weights(settings: Settings, *, deep: bool, tell: Tell) -> list[Finding]:
    """A line for the weights of each model that a lane uses, and of its adapters."""
    names = [each for name in select(settings) for each in (name, *adapters_of(settings, name))]
    return [_look(settings, name, deep=deep, tell=tell) for name in names]


def _look(settings: Settings, name: str, *, deep: bool, tell: Tell) -> Finding:
    title = f"weights of {name}"
    declared = weights_of(settings, name)
    mend = _mend(settings, name)
    try:
        path = original_path(settings, name)
        if not path.is_file():
            return failure(title, f"missing at {path}", mend)
        size = path.stat().st_size
        if declared.size is not None and size != declared.size:
            return failure(title, f"{path} has {size} bytes instead of {declared.size}", mend)
        sha256 = _hash(settings, path, deep=deep, tell=tell)
    except (OSError, WeightsError) as error:
        return failure(title, f"cannot be read: {error}", mend)
    return _judged(settings, name, declared, sha256, deep=deep, tell=tell)


def _judged(
    settings: Settings, name: str, declared: Weights, sha256: str | None, *, deep: bool, tell: Tell
) -> Finding:
    title, mend = f"weights of {name}", _mend(settings, name)
    path = original_path(settings, name)
    wanted = wanted_sha256(settings, declared)
    if sha256 is None:
        said = f"{path} has the right size; its hash was never taken, or it has changed since"
        return warning(title, said, "run `uptier doctor --deep`, which reads it whole")
    if wanted is not None and sha256 != wanted:
        return failure(title, f"{path} has sha256 {sha256} instead of {wanted}", mend)
    damaged = _damaged_format(settings, name, sha256, deep=deep, tell=tell)
    if damaged is not None:
        again = f"run `uptier models prepare --profile {settings.profile}`: until then the "
        return warning(title, damaged, again + "file as it came is served, which is slower")
    how = "read whole" if deep else "by the hash that was recorded"
    known = "" if wanted is not None else "; the profile names no hash to hold it to"
    return well(title, f"{path}, intact {how}{known}")


def _hash(settings: Settings, path: Path, *, deep: bool, tell: Tell) -> str | None:
    if not deep:
        return record_of(settings.models_dir, path)
    size = path.stat().st_size
    return hash_file(path, lambda done: tell(path.name, done, size))


def _damaged_format(
    settings: Settings, name: str, sha256: str, *, deep: bool, tell: Tell
) -> str | None:
    """What is wrong with the prepared format that this machine serves; ``None`` if nothing."""
    choice = remembered(settings.models_dir, name, sha256)
    if choice is None or choice.file is None:
        return None
    path = settings.models_dir / PREPARED / choice.file
    if not path.is_file():
        return f"the prepared {choice.format} is missing at {path}"
    found = _hash(settings, path, deep=deep, tell=tell)
    return None if found == choice.sha256 else f"the prepared {choice.format} at {path} has changed"


def _mend(settings: Settings, name: str) -> str:
    if weights_of(settings, name).source.kind == "file":
        return f"put the file there, or correct its path in profile {settings.profile}"
    return f"run `uptier models pull --profile {settings.profile}`"
