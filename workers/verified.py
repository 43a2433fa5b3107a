"""Remembers the hash of each weights file, so that a worker's start does not read a gigabyte."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from filelock import FileLock
from pydantic import ValidationError

from config.catalog import Strict

STATE = "verified.json"
CHUNK = 4 << 20  # bytes

S = TypeVar("S", bound=Strict)


class FileRecord(Strict):
    """A file as it was when it was hashed; a changed size or time makes the record void."""

    size: int
    mtime_ns: int
    sha256: str


class Memory(Strict):
    """What ``verified.json`` holds: hashes of files here, and hashes that the hub promised."""

    files: dict[str, FileRecord] = {}
    hub: dict[str, str] = {}


def sha256_of(models_dir: Path, path: Path, advance: Callable[[int], None] | None = None) -> str:
    """The SHA-256 of a file, computed only if it changed since it was last asked for.

    ``advance`` is called with the number of bytes hashed so far.

    Raises:
        OSError: the file cannot be read.
    """
    before = path.stat()
    key = _key(models_dir, path)
    known = record_of(models_dir, path)
    if known is not None:
        return known
    digest = hash_file(path, advance)
    after = path.stat()
    if (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
        record = FileRecord(size=after.st_size, mtime_ns=after.st_mtime_ns, sha256=digest)
        # A directory that cannot be written only costs hashing again.
        with suppress(OSError):
            _change(models_dir, lambda memory: {"files": {**memory.files, key: record}})
    return digest


def record_of(models_dir: Path, path: Path) -> str | None:
    """The SHA-256 that was recorded of a file; ``None`` if none was, or it has changed since.

    Raises:
        OSError: the file is not there.
    """
    found, known = path.stat(), recall(models_dir).files.get(_key(models_dir, path))
    if known is None or (known.size, known.mtime_ns) != (found.st_size, found.st_mtime_ns):
        return None
    return known.sha256


def hash_file(path: Path, advance: Callable[[int], None] | None = None) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if advance is not None:
                advance(done)
    return digest.hexdigest()


def remember_file(models_dir: Path, path: Path, sha256: str) -> None:
    """Notes the hash of a file that was hashed while it was written."""
    found = path.stat()
    record = FileRecord(size=found.st_size, mtime_ns=found.st_mtime_ns, sha256=sha256)
    key = _key(models_dir, path)
    _change(models_dir, lambda memory: {"files": {**memory.files, key: record}})


def remember_hub(models_dir: Path, source: str, sha256: str) -> None:
    """Notes the hash that the hub gives for a file, for when the hub cannot be asked."""
    _change(models_dir, lambda memory: {"hub": {**memory.hub, source: sha256}})


def recall(models_dir: Path) -> Memory:
    """What is remembered; nothing where there is no state or it is damaged."""
    return read_state(models_dir / STATE, Memory)


def read_state(path: Path, kind: type[S]) -> S:
    """A state file as a value; empty where it is absent or damaged, for it can be made again."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return kind()


def write_state(path: Path, state: Strict) -> None:
    """Replaces a state file at once; a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not a file of mkstemp, which no other user of a shared directory could read.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(state.model_dump_json(indent=1))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _change(models_dir: Path, change: Callable[[Memory], dict[str, object]]) -> None:
    models_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(models_dir / f".{STATE}.lock"):
        memory = recall(models_dir)
        write_state(models_dir / STATE, memory.model_copy(update=change(memory)))


def _key(models_dir: Path, path: Path) -> str:
    """Relative where it can be, so that a models directory may be moved."""
    return str(path.relative_to(models_dir) if path.is_relative_to(models_dir) else path)
